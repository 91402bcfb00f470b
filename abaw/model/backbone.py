"""Backbone: a timm network from uint8 face crops to one feature vector per frame."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from abaw.errors import UsageError, check_settings, did_you_mean
from abaw.model.weights import build_with, hub_file, read_state_dict


class PixelInput(nn.Module):
    """Normalisation and resizing of crops, in float32 also under autocast.

    Normalising first equals the usual order up to rounding and is cheaper when crops are enlarged.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, *, image_size: int, mean: Sequence[float], std: Sequence[float], interpolation: str
    ) -> None:
        """`image_size` in pixels, `mean` and `std` of colours in [0, 1], mode of F.interpolate."""
        super().__init__()
        self.size = (image_size, image_size)
        self.interpolation = interpolation
        # not in the state dict: a checkpoint holds them as settings
        self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """From uint8 (M, H, W, 3), RGB, to float32 (M, 3, image_size, image_size)."""
        images = frames.permute(0, 3, 1, 2).float()  # (M, 3, H, W)
        images = (images - self.mean) / self.std
        if images.shape[-2:] == self.size:
            return images
        shrinks = images.shape[-2] > self.size[0] or images.shape[-1] > self.size[1]
        return F.interpolate(images, self.size, mode=self.interpolation, antialias=shrinks)


class PooledFeatures(nn.Module):
    """A timm network without classifier, with average pooling: one feature vector per image.

    Token networks: the mean of the patch tokens after the final norm, without prefix tokens (CLS, registers);
    networks pretrained with the final norm after the mean (`fc_norm`, or in the head) keep it there.
    Convolutional networks: their own pooling and what follows it.
    """

    net: Any  # timm's networks share methods that nn.Module does not declare

    def __init__(self, net: Any) -> None:
        super().__init__()
        net.attn_pool = None  # attention pooling is unused here, and DDP refuses unused parameters
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """From float (M, 3, S, S) to float32 (M, D).

        Raises:
            NotImplementedError: The output of the network is neither patch tokens nor a feature map.
        """
        tokens = self.net.forward_features(images)  # (M, tokens, D), or a feature map
        if not isinstance(tokens, Tensor):
            raise NotImplementedError(f"its features are a {type(tokens).__name__} instead of one tensor")
        if tokens.ndim == 3:
            patches = tokens[:, self._n_prefix_tokens(tokens.shape[1]) :]
            pooled: Tensor = self._norm_after_mean()(patches.mean(1, dtype=torch.float32))
        else:
            pooled = self.net.forward_head(tokens, pre_logits=True)
        return pooled.float()

    def _n_prefix_tokens(self, n: int) -> int:
        """Number of prefix tokens among `n` tokens; inferred where the network does not declare it."""
        if hasattr(self.net, "num_prefix_tokens"):
            return int(self.net.num_prefix_tokens)
        n_others = n - math.isqrt(n) ** 2  # images are square
        if n_others > 1 or n == 1:
            raise NotImplementedError(f"its features are {n} tokens, not a square grid of patches")
        return n_others

    def _norm_after_mean(self) -> Any:
        norms = (getattr(self.net, "fc_norm", None), getattr(getattr(self.net, "head", None), "norm", None))
        return next((norm for norm in norms if norm is not None), nn.Identity())


@dataclass(frozen=True, kw_only=True)
class BackboneSettings:
    """The timm network that encodes frames, its weights, and how it is trained."""

    name: str = "vit_base_patch16_224.orig_in21k"
    """Name of any timm model, with or without the tag of its weights."""
    weights: str = "hub"
    """`hub` downloads the weights of the name's tag, `none` keeps random weights, else a local file."""
    image_size: int = 224
    """Side in pixels to which frames are resized on the device."""
    chunk: int | None = 256
    """Number of frames per forward pass, which limits the memory of evaluation; null: all of them. Training
    keeps the activations of all frames, unless with `gradient_checkpointing`."""
    frozen: int | Literal["all"] = 0
    """Number of frozen leading layers, the stem included; `all` freezes the whole network."""
    drop_path: float = 0.0
    """Stochastic depth: probability of skipping the last block in training; lower for earlier ones."""
    gradient_checkpointing: bool = False
    """Recomputes activations in the backward pass: less memory, a third more time."""
    compile: bool = False
    """Compiles the network with torch.compile: takes a minute at the start, faster on a GPU."""
    mean: tuple[float, float, float] | None = None
    """Mean of the colours in [0, 1]; null: that of the pretrained weights."""
    std: tuple[float, float, float] | None = None
    """Standard deviation of the colours; null as for `mean`."""
    interpolation: Literal["bicubic", "bilinear"] | None = None
    """Interpolation of the resizing; null as for `mean`."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Further arguments of timm.create_model, such as `depth: 4`; plain values only."""

    def __post_init__(self) -> None:
        frozen, std = self.frozen, self.std
        layers = frozen == "all" or (isinstance(frozen, int) and frozen >= 0)
        modes = (None, "bicubic", "bilinear")
        rules = {
            "image_size": (self.image_size >= 1, "a number of pixels"),
            "chunk": (self.chunk is None or self.chunk >= 0, "a number of frames, or null"),
            "frozen": (layers, "a number of layers, or all"),
            "drop_path": (0 <= self.drop_path < 1, "a probability in [0, 1)"),
            "mean": (self.mean is None or len(self.mean) == 3, "three numbers, or null"),
            "std": (std is None or (len(std) == 3 and min(std) > 0), "three positive numbers, or null"),
            "interpolation": (self.interpolation in modes, "bicubic, bilinear or null"),
            "overrides": (isinstance(self.overrides, Mapping), "names with values, or {} for none"),
        }
        check_settings("model.backbone", self, rules)

    def describe(self) -> dict[str, Any]:
        """Plain values for `from_description`; those of a built backbone do not depend on timm's defaults."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """The settings of a description, with `compile` off."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in description.items()}
        return cls(**plain | {"compile": False})


class Backbone(nn.Module):
    """Encoder from frames to features: a timm network, its weights and their pre-processing.

    Attributes:
        settings: The settings given, with `mean`, `std` and `interpolation` resolved.
        dim: Feature dimension (D).
        n_layers: Number of layers for freezing and layer-wise learning rates, the stem included.
    """

    def __init__(self, settings: BackboneSettings, *, pretrained: bool = True) -> None:
        """Builds the network; `pretrained=False` leaves `load_pretrained` to the caller.

        Raises:
            UsageError: timm does not know the name, an override, or the image size does not fit.
            AbawError: The weights cannot be found or do not fit.
        """
        super().__init__()
        net = _create(settings)
        pixels = _input_of(net, settings)
        self.settings = replace(settings, **pixels)
        self.input = PixelInput(image_size=settings.image_size, **pixels)
        self.pooled = PooledFeatures(net)
        self.dim = self._feature_length()
        self._layer_of, self.n_layers = _layers(net)
        self._frozen_modules = self._freeze()
        if settings.gradient_checkpointing:
            _checkpoint_gradients(net, settings.name)
        if settings.compile:
            self.pooled.compile()  # in place: the keys of the state dict stay
        if pretrained:
            self.load_pretrained()

    @torch.no_grad()
    def _feature_length(self) -> int:
        """The feature dimension, from a forward pass of one black image; raises UsageError if it fails."""
        size = self.settings.image_size
        try:
            features: Tensor = self.pooled.eval()(torch.zeros(1, 3, size, size))
        except (TypeError, ValueError, AssertionError, AttributeError, RuntimeError) as error:
            first_line = str(error).strip().partition("\n")[0] or type(error).__name__
            raise UsageError(
                f"model.backbone: {self.settings.name} cannot process images of {size} pixels"
                f" ({first_line[:200]}); choose another name or image_size"
            ) from error
        self.pooled.train()
        return features.shape[1]

    def load_pretrained(self) -> None:
        """Loads the weights that the settings name; with `weights: none` does nothing.

        Raises:
            AbawError: The weights cannot be found or do not fit.
        """
        name, weights = self.settings.name, self.settings.weights
        if weights == "none":
            return
        published = _timm().get_pretrained_cfg(name)
        path = hub_file(name, published) if weights == "hub" else Path(weights).expanduser()
        create = partial(_create, self.settings)
        net = build_with(create, read_state_dict(path), published.classifier, str(path))
        self.pooled.net.load_state_dict(net.state_dict())

    def forward(self, frames: Tensor) -> Tensor:
        """The features of frames.

        Args:
            frames: uint8 (M, H, W, 3), RGB; M may be 0.

        Returns:
            float32 (M, D).
        """
        if len(frames) == 0:
            # discarded black images keep dtype and gradient (zero); two of them, as batch norm needs
            return self.forward(frames.new_zeros((2, *frames.shape[1:])))[:0]
        chunks = torch.split(frames, self.settings.chunk or len(frames))
        return torch.cat([self._pooled(chunk) for chunk in chunks])

    def _pooled(self, frames: Tensor) -> Tensor:
        if not self.settings.compile:
            return self.pooled(self.input(frames))
        # one graph for any number of images; torch.compile would make another for a single one
        images = self.input(frames.repeat(2, 1, 1, 1) if len(frames) == 1 else frames)
        torch._dynamo.maybe_mark_dynamic(images, 0)
        return self.pooled(images)[: len(frames)]

    def _freeze(self) -> tuple[nn.Module, ...]:
        """Freezes the leading layers and returns all modules that are frozen as a whole."""
        frozen = self.settings.frozen
        depth = self.n_layers if frozen == "all" else frozen
        if depth > self.n_layers:
            raise UsageError(
                f"model.backbone.frozen: {self.settings.name} has {self.n_layers} layers, {depth} cannot be "
                "frozen; give fewer, or all"
            )
        for name, parameter in self.pooled.net.named_parameters():
            if self._layer_of[name] < depth:
                parameter.requires_grad_(False)
        return tuple(module for module in self.pooled.modules() if _is_frozen(module))

    def train(self, mode: bool = True) -> Self:
        """Sets training mode; frozen layers stay in evaluation mode: no dropout, fixed batch statistics."""
        super().train(mode)
        for module in self._frozen_modules:
            module.eval()
        return self

    def param_groups(
        self, *, lr: float, weight_decay: float, layer_decay: float = 1.0
    ) -> list[dict[str, Any]]:
        """Optimizer parameter groups of the trained parameters, each with its learning rate.

        Args:
            lr: Learning rate of the last layer.
            weight_decay: For weights; biases, norms, class tokens and position embeddings have none.
            layer_decay: Ratio of the learning rates of a layer and the layer after it.

        Returns:
            Groups with the keys `params`, `lr`, `weight_decay`, `name`.
        """
        net: Any = self.pooled.net
        undecayed = net.no_weight_decay() if hasattr(net, "no_weight_decay") else ()
        groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
        for name, parameter in net.named_parameters():
            if parameter.requires_grad:
                layer = self._layer_of[name] if layer_decay != 1 else self.n_layers - 1
                decayed = parameter.ndim >= 2 and name not in undecayed
                groups.setdefault((layer, decayed), []).append(parameter)
        return [
            {
                "params": parameters,
                "lr": lr * layer_decay ** (self.n_layers - 1 - layer),
                "weight_decay": weight_decay if decayed else 0.0,
                "name": f"backbone/layer{layer}/{'weights' if decayed else 'rest'}",
            }
            for (layer, decayed), parameters in sorted(groups.items())
        ]


def _timm() -> Any:
    """The timm library, imported late because the import takes seconds; without wandb, a third of them."""
    hidden = not {"timm", "wandb"} & sys.modules.keys()  # timm imports wandb if it can
    if hidden:
        sys.modules["wandb"] = None  # type: ignore[assignment]
    try:
        import timm
    finally:
        if hidden:
            del sys.modules["wandb"]
    return timm


def weights_license(settings: BackboneSettings) -> str | None:
    """Licence of the pretrained weights that a backbone began with, from timm; None: none, or not known."""
    if settings.weights != "hub":
        return None
    license: str | None = _timm().get_pretrained_cfg(settings.name).license
    return license


def _create(settings: BackboneSettings, **weights: Any) -> Any:
    """The timm network without classifier, with random weights unless `weights` names others to timm."""
    timm, name = _timm(), settings.name
    if not timm.is_model(name):
        hint = did_you_mean(name.partition(".")[0], timm.list_models()) or "; see timm.list_models()"
        raise UsageError(f"model.backbone.name: timm {timm.__version__} has no {name!r}{hint}")
    try:
        published = timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # an unknown tag
        raise UsageError(f"model.backbone.name: {error} See timm.list_pretrained().") from error
    extra = dict(settings.overrides)
    if settings.drop_path:
        extra["drop_path_rate"] = settings.drop_path
    if published.fixed_input_size:  # other networks take any size
        extra["img_size"] = settings.image_size
    try:
        net = timm.create_model(name, num_classes=0, **extra, **weights)
    except (TypeError, ValueError, AssertionError, NotImplementedError) as error:
        if settings.overrides and "unexpected keyword argument" in str(error):
            raise UsageError(
                f"model.backbone.overrides: {settings.overrides} are arguments of another network than {name}"
                f" ({error}); set model.backbone.overrides to {{}}, or to arguments of {name}"
            ) from error
        raise UsageError(
            f"model.backbone: timm cannot build {name} with image_size {settings.image_size} and "
            f"overrides {settings.overrides} ({error or 'they do not fit each other'}); most networks need "
            "an image_size that is a multiple of their patch size or stride"
        ) from error
    _check_patches(net, settings)
    return net


def _checkpoint_gradients(net: Any, name: str) -> None:
    try:
        net.set_grad_checkpointing()
    except (AssertionError, AttributeError) as error:
        raise UsageError(
            f"model.backbone.gradient_checkpointing: timm does not support it for {name}; set it to false,"
            " and lower model.backbone.chunk or data.batch_size to save memory"
        ) from error


def _input_of(net: Any, settings: BackboneSettings) -> dict[str, Any]:
    """Arguments of `PixelInput`, from the settings or else from timm's config of the weights."""
    default = _timm().data.resolve_model_data_config(net)
    known = "bilinear" if default["interpolation"] == "bilinear" else "bicubic"
    return {
        "mean": settings.mean or tuple(default["mean"]),
        "std": settings.std or tuple(default["std"]),
        "interpolation": settings.interpolation or known,
    }


def _check_patches(net: Any, settings: BackboneSettings) -> None:
    """Raises UsageError for an image size that is not a multiple of the patch size."""
    patches: Any = getattr(net, "patch_embed", None)
    if not hasattr(patches, "grid_size") or hasattr(patches, "backbone"):
        return  # no plain patches
    size, patch = settings.image_size, patches.patch_size[0]
    if size % patch:
        raise UsageError(
            f"model.backbone.image_size: {size} is not a multiple of the {patch}-pixel patches of "
            f"{settings.name}, the border would be cut off; give {max(size // patch, 1) * patch}"
        )


def _layers(net: Any) -> tuple[dict[str, int], int]:
    """The layer of every parameter by name, 0 for the stem, and the number of layers."""
    from timm.models import group_parameters

    if not hasattr(net, "group_matcher"):  # timm does not declare its layers
        return {name: 0 for name, _ in net.named_parameters()}, 1
    layer_of = group_parameters(net, net.group_matcher(coarse=False), reverse=True)
    return layer_of, 1 + max(layer_of.values())


def _is_frozen(module: nn.Module) -> bool:
    """Whether a module has parameters and all of them are frozen."""
    trained = [parameter.requires_grad for parameter in module.parameters()]
    return bool(trained) and not any(trained)
