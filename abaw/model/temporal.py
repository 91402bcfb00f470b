"""Temporal encoder: a transformer encoder over the features of frames."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from abaw.errors import UsageError, check_settings
from abaw.model.attention import AttentionMask, SelfAttention, attention_mask
from abaw.model.positions import LearnedPositions, RotaryEmbedding, rotary_embedding, sinusoidal

Positions = Literal["sinusoidal", "learned", "rotary", "none"]
POSITIONS = get_args(Positions)
MASK_TOKEN = "fill"
"""Key of the mask token in state dicts, as in version 0.1.0: fingerprints of checkpoints depend on it."""


@dataclass(frozen=True, kw_only=True)
class TemporalSettings:
    """Architecture of the temporal encoder, and how it treats frames that are not visible."""

    layers: int = 4
    """Number of transformer blocks; 0 makes a model of single frames."""
    heads: int = 4
    """Number of attention heads; `width` is a multiple of it."""
    width: int | None = 512
    """Embedding dimension; null keeps that of the features, without a projection."""
    feedforward: int = 512
    """Hidden dimension of the feedforward network in each block."""
    dropout: float = 0.1
    """Dropout of attention weights, hidden layers and the output of every residual branch."""
    drop_path: float = 0.0
    """Stochastic depth: probability that a clip skips a branch; rises linearly to this at the last block."""
    norm: Literal["pre", "post"] = "pre"
    """Layer norm before each branch and at the end, or after each branch as in the original transformer."""
    activation: Literal["gelu", "relu"] = "gelu"
    """Activation of the feedforward networks."""
    positions: Positions = "sinusoidal"
    """Position encoding; every kind accepts windows longer than those of the training."""
    max_length: int = 512
    """Number of learned positions, at least the window of the training; interpolated for longer windows."""
    causal: bool = False
    """No output depends on a later frame."""
    context: int | None = None
    """Number of frames before, and after unless causal, that a block attends to; null: the whole window."""
    mask_token: Literal["learned", "zero"] = "learned"
    """Vector in place of the features of masked, missing and padded frames: learned, or zero."""
    attend_masked: bool = False
    """Whether frames attend to masked and missing ones too, as in the paper; to padding they never do."""
    compile: bool = False
    """Whether to compile the blocks with torch.compile in training."""

    def __post_init__(self) -> None:
        chance = "a probability in [0, 1)"
        rules = {
            "layers": (self.layers >= 0, "0 or more"),
            "heads": (self.heads >= 1, "1 or more"),
            "width": (self.width is None or self.width >= 1, "1 or more, or null"),
            "feedforward": (self.feedforward >= 1, "1 or more"),
            "dropout": (0 <= self.dropout < 1, chance),
            "drop_path": (0 <= self.drop_path < 1, chance),
            "norm": (self.norm in ("pre", "post"), "pre or post"),
            "activation": (self.activation in ("gelu", "relu"), "gelu or relu"),
            "positions": (self.positions in POSITIONS, f"one of {', '.join(POSITIONS)}"),
            "max_length": (self.max_length >= 1, "1 or more"),
            "context": (self.context is None or self.context >= 0, "a number of frames, or null"),
            "mask_token": (self.mask_token in ("learned", "zero"), "learned or zero"),
        }
        check_settings("model.temporal", self, rules)
        if self.width is not None:
            self.check_width(self.width)

    def describe(self) -> dict[str, Any]:
        """Plain values for `from_description`."""
        return asdict(self)

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """The settings of a description, with `compile` off; those of 0.1.0 call the mask token `fill`."""
        current = {"mask_token" if name == "fill" else name: value for name, value in description.items()}
        return cls(**current | {"compile": False})

    def check_width(self, width: int) -> None:
        """Raises UsageError if a width does not fit the heads and positions."""
        if self.layers and width % self.heads:
            raise UsageError(f"model.temporal: heads ({self.heads}) must divide width ({width})")
        pairs = {"sinusoidal": width, "rotary": width // self.heads}.get(self.positions, 0)
        if self.layers and pairs % 2:
            raise UsageError(
                f"model.temporal: {self.positions} positions need even sizes, so width ({width}) divided by "
                f"{1 if self.positions == 'sinusoidal' else self.heads} must be even"
            )


class Block(nn.Module):
    """One transformer block: self-attention and feedforward network, each with a residual connection."""

    def __init__(self, settings: TemporalSettings, *, width: int, drop_path: float) -> None:
        super().__init__()
        self.pre = settings.norm == "pre"
        self.attention = SelfAttention(width=width, heads=settings.heads, dropout=settings.dropout)
        self.hidden = nn.Sequential(
            nn.Linear(width, settings.feedforward),
            nn.GELU() if settings.activation == "gelu" else nn.ReLU(),
            nn.Dropout(settings.dropout),
            nn.Linear(settings.feedforward, width),
        )
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.dropout = nn.Dropout(settings.dropout)
        self.drop_path = drop_path

    def forward(self, x: Tensor, mask: AttentionMask, rotary: RotaryEmbedding | None) -> Tensor:
        """From (B, T, width) to (B, T, width)."""
        first, second = self.norms
        if self.pre:
            x = x + self._branch(self.attention(first(x), mask, rotary))
            return x + self._branch(self.hidden(second(x)))
        x = first(x + self._branch(self.attention(x, mask, rotary)))
        return second(x + self._branch(self.hidden(x)))

    def _branch(self, x: Tensor) -> Tensor:
        """Output of a residual branch after dropout and stochastic depth."""
        x = self.dropout(x)
        if not self.training or self.drop_path == 0:
            return x
        kept = torch.rand(len(x), 1, 1, device=x.device) >= self.drop_path
        return torch.where(kept, x / (1 - self.drop_path), 0.0)


class Blocks(nn.Module):
    """All transformer blocks and the final norm: the module that torch.compile compiles."""

    def __init__(self, settings: TemporalSettings, *, width: int) -> None:
        super().__init__()
        last = max(settings.layers - 1, 1)
        self.blocks = nn.ModuleList(
            Block(settings, width=width, drop_path=settings.drop_path * depth / last)
            for depth in range(settings.layers)
        )
        pre_norm = settings.norm == "pre" and settings.layers
        self.norm = nn.LayerNorm(width) if pre_norm else nn.Identity()

    def forward(self, x: Tensor, mask: AttentionMask, rotary: RotaryEmbedding | None) -> Tensor:
        """From (B, T, width) to (B, T, width)."""
        for block in self.blocks:
            x = block(x, mask, rotary)
        return self.norm(x)


class TemporalEncoder(nn.Module):
    """Transformer encoder from features of frames to states that depend on the whole window.

    The features of invisible frames are replaced by the mask token. They attend to visible frames and
    themselves; other frames do not attend to them (with `attend_masked` they do, but never to padding). So no
    output depends on padding or on the content of invisible frames, and all outputs are finite.

    Attributes:
        settings: As given.
        width: Embedding dimension of a state.
    """

    def __init__(self, settings: TemporalSettings, *, dim: int) -> None:
        """`dim` is the feature dimension (D)."""
        super().__init__()
        self.settings = settings
        self.width = width = settings.width or dim
        settings.check_width(width)
        if settings.mask_token == "learned":
            self.register_parameter(MASK_TOKEN, nn.Parameter(torch.empty(dim)))
            nn.init.normal_(self.mask_token, std=0.02)
        else:
            self.register_buffer(MASK_TOKEN, torch.zeros(dim), persistent=False)
        self.project = nn.Identity() if width == dim else nn.Linear(dim, width)
        self.learned = (
            LearnedPositions(length=settings.max_length, width=width)
            if settings.positions == "learned" and settings.layers
            else None
        )
        self.dropout = nn.Dropout(settings.dropout if settings.layers else 0.0)
        self.blocks = Blocks(settings, width=width)
        if settings.compile:
            self.blocks.compile()  # in place: the keys of the state dict stay

    @property
    def mask_token(self) -> Tensor:
        """The mask token, float (D,)."""
        return getattr(self, MASK_TOKEN)

    def forward(
        self, features: Tensor, *, visible: Tensor, present: Tensor, complete: bool = False
    ) -> Tensor:
        """The state of every frame.

        Args:
            features: float (B, T, D); values of frames that are not visible are ignored.
            visible: bool (B, T).
            present: bool (B, T), False on padding.
            complete: Whether all frames are known to be visible, which is faster and does not change outputs.

        Returns:
            float (B, T, width).
        """
        settings = self.settings
        x: Tensor = torch.where(visible[..., None], features.float(), self.mask_token)  # (B, T, D)
        x = self.project(x).float()  # (B, T, width); the residual stream stays float32
        if not settings.layers:
            return x
        length, device = x.shape[1], x.device
        rotary = None
        if settings.positions == "rotary":
            rotary = rotary_embedding(length, self.width // settings.heads, device)
        elif settings.positions == "sinusoidal":
            x = x + sinusoidal(length, self.width, device)
        elif self.learned is not None:
            x = x + self.learned(length)
        keys = present if settings.attend_masked else visible
        mask = attention_mask(
            length,
            keys=None if complete else keys,
            causal=settings.causal,
            context=settings.context,
            device=device,
        )
        return self.blocks(self.dropout(x), mask, rotary)
