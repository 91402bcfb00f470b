"""The network: backbone on visible frames, temporal encoder on all frames, one head per task."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self

from torch import Tensor, nn

from abaw.batch import Batch
from abaw.errors import AbawError, UsageError
from abaw.model.backbone import Backbone, BackboneSettings
from abaw.model.heads import Heads, HeadSettings, predictions
from abaw.model.temporal import TemporalEncoder, TemporalSettings
from abaw.tasks import Task


class Network(nn.Module):
    """Backbone, temporal encoder and heads: from clips to the outputs of every task.

    Attributes:
        tasks: The predicted tasks.
        backbone: Encoder of single frames; None for a network on cached features.
        temporal: Encoder of the sequence.
        heads: Heads of the tasks.
        dim: Feature dimension (D).
    """

    def __init__(
        self,
        *,
        tasks: Sequence[Task],
        backbone: BackboneSettings | None,
        temporal: TemporalSettings,
        heads: HeadSettings,
        dim: int | None = None,
        pretrained: bool = True,
    ) -> None:
        """Builds the network.

        Args:
            tasks: The tasks to predict.
            backbone: Settings of the backbone; None for a network on cached features.
            temporal: Settings of the temporal encoder.
            heads: Settings of the heads.
            dim: Dimension of the cached features if there is no backbone.
            pretrained: Whether the backbone loads the weights that its settings name.

        Raises:
            UsageError: The settings contradict each other.
            AbawError: The backbone's weights cannot be found or do not fit.
        """
        super().__init__()
        self.tasks = tuple(tasks)
        self.backbone = None if backbone is None else Backbone(backbone, pretrained=pretrained)
        if self.backbone is not None and dim not in (None, self.backbone.dim):
            raise UsageError(
                f"model.dim is {dim}, but the features of model.backbone.name {self.backbone.settings.name} "
                f"have {self.backbone.dim} values; leave it out, or set model.backbone to null"
            )
        if self.backbone is None and dim is None:
            raise UsageError("model.backbone is null: give the length of the cached features as model.dim")
        self.dim = int(dim or 0) if self.backbone is None else self.backbone.dim
        self.temporal = TemporalEncoder(temporal, dim=self.dim)
        self.head_settings = heads
        self.heads = Heads(heads, self.tasks, width=self.temporal.width)

    def forward(self, batch: Batch) -> dict[Task, Tensor]:
        """The outputs of every frame, visible or not.

        Args:
            batch: B clips of T frames.

        Returns:
            Per task float32 (B, T, K): valence and arousal in [-1, 1]; logits of expressions and action
            units, which `predictions` converts to probabilities.

        Raises:
            AbawError: The features have another length, or there are frames but no backbone.
        """
        return self.from_features(self.encode(batch), batch)

    def from_features(self, features: Tensor, batch: Batch) -> dict[Task, Tensor]:
        """As `forward`, from the features (B, T, D) of the frames of a batch."""
        states = self.temporal(
            features, visible=batch.visible, present=batch.present, complete=bool(batch.complete)
        )
        return self.heads(states, batch.present)

    def encode(self, batch: Batch) -> Tensor:
        """The features of every frame; only frames with an image pass through the backbone.

        Args:
            batch: B clips of T frames, or of cached features, which are returned unchanged.

        Returns:
            float (B, T, D); zeros for frames without an image, with cached features any value.

        Raises:
            AbawError: The features have another length, or there are frames but no backbone.
        """
        if batch.features is not None:
            if batch.features.shape[-1] != self.dim:
                raise AbawError(
                    f"cached features have {batch.features.shape[-1]} values per frame, the network takes "
                    f"{self.dim}; extract them with the backbone of this configuration"
                )
            return batch.features
        assert batch.frames is not None
        assert batch.keep is not None
        b, t = batch.visible.shape
        seen = self.encode_frames(batch.frames)
        scattered: Tensor = seen.new_zeros((b * t, self.dim)).index_copy(0, batch.keep, seen)
        return scattered.view(b, t, self.dim)

    def encode_frames(self, frames: Tensor) -> Tensor:
        """The features of images uint8 (M, H, W, 3), float (M, D); raises AbawError without a backbone."""
        if self.backbone is None:
            raise AbawError("this network was trained on cached features and has no backbone for frames")
        features: Tensor = self.backbone(frames)
        return features

    def predictions(self, outputs: Mapping[Task, Tensor]) -> dict[Task, Tensor]:
        """Predictions from outputs, float32 (..., K): VA in [-1, 1], probabilities of EXPR and AU."""
        return predictions(outputs)

    def param_groups(
        self, *, lr: float, weight_decay: float, layer_decay: float = 1.0, backbone_lr: float = 1.0
    ) -> list[dict[str, Any]]:
        """Optimizer parameter groups of all trained parameters, each with its learning rate.

        Args:
            lr: Learning rate of transformer and heads.
            weight_decay: For tensors of two or more dimensions.
            layer_decay: Ratio of the learning rates of a backbone layer and the layer after it.
            backbone_lr: Learning rate of the last backbone layer, as a factor of `lr`.

        Returns:
            Groups with the keys `params`, `lr`, `weight_decay`, `name`; no group is empty.
        """
        groups: list[dict[str, Any]] = []
        if self.backbone is not None:
            groups += self.backbone.param_groups(
                lr=lr * backbone_lr, weight_decay=weight_decay, layer_decay=layer_decay
            )
        rest = [*self.temporal.parameters(), *self.heads.parameters()]
        for name, decayed in (("weights", True), ("rest", False)):
            parameters = [p for p in rest if p.requires_grad and (p.ndim >= 2) == decayed]
            if parameters:
                decay = weight_decay if decayed else 0.0
                groups.append(
                    {"params": parameters, "lr": lr, "weight_decay": decay, "name": f"sequence/{name}"}
                )
        return groups

    def describe(self) -> dict[str, Any]:
        """Plain values from which `from_description` rebuilds the network, also with a later timm."""
        return {
            "tasks": [task.describe() for task in self.tasks],
            "dim": self.dim,
            "backbone": None if self.backbone is None else self.backbone.settings.describe(),
            "temporal": self.temporal.settings.describe(),
            "heads": asdict(self.head_settings),
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any], *, trust_code: bool = False) -> Self:
        """The network of a description, uncompiled and with random weights: nothing is downloaded.

        Args:
            description: From `describe`.
            trust_code: Whether to import tasks that need code.
        """
        backbone = description["backbone"]
        return cls(
            tasks=[Task.from_description(plain, trust_code=trust_code) for plain in description["tasks"]],
            backbone=None if backbone is None else BackboneSettings.from_description(backbone),
            temporal=TemporalSettings.from_description(description["temporal"]),
            heads=HeadSettings(**description["heads"]),
            dim=description["dim"],
            pretrained=False,
        )
