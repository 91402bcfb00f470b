"""What cached features depend on, and whether a run's own backbone would have made those it is given."""

import hashlib
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from abaw.data.feature_files import FORMAT
from abaw.data.features import FeatureStore
from abaw.errors import UsageError
from abaw.model.backbone import Backbone


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of all weights, wherever they lie."""
    total = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().data)
    return total.hexdigest()


def backbone_parts(backbone: Backbone) -> dict[str, Any]:
    """All of a backbone that its features depend on, as plain values; how it is trained is left out."""
    settings = backbone.settings.describe()
    return {
        "format": FORMAT,
        "backbone": {name: settings[name] for name in ("name", "overrides")},
        "weights": weights_hash(backbone),
        "transform": {name: settings[name] for name in ("image_size", "mean", "std", "interpolation")},
    }


class FeatureCheck(Callback):
    """Refuses, once the weights are loaded, features that the run's backbone would not have made.

    Without it a checkpoint could hold a backbone that its own transformer has never met. Runs on images,
    and networks without a backbone, pass.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks before training.

        Raises:
            UsageError: The backbone is to be trained, which features do not allow.
            AbawError: See `FeatureStore.check_key`.
        """
        backbone = cast(Any, pl_module).network.backbone
        trained = backbone is not None and any(weight.requires_grad for weight in backbone.parameters())
        if trained and cast(Any, trainer).datamodule.features:
            raise UsageError(
                "model.backbone.frozen: cached features train nothing of the backbone; set it to all, or"
                " leave out data.features to train on images"
            )
        self._check(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks before a validation that is no part of a training."""
        if trainer.state.fn == "validate":
            self._check(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As for validation."""
        self._check(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As for validation."""
        self._check(trainer, pl_module)

    def _check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data, backbone = cast(Any, trainer).datamodule, cast(Any, pl_module).network.backbone
        if data.features and backbone is not None:
            FeatureStore(data.features, data.index).check_key(backbone_parts(backbone))
