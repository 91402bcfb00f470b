"""The network that sees the sequence: a transformer encoder over frame features."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from abaw.errors import UsageError, check_settings
from abaw.model.attention import AttentionMask, SelfAttention, look
from abaw.model.positions import LearnedPositions, Rotation, rotation, sinusoidal

Positions = Literal["sinusoidal", "learned", "rotary", "none"]
POSITIONS = get_args(Positions)


@dataclass(frozen=True, kw_only=True)
class TemporalSettings:
    """The shape of the transformer, and what stands for a frame that is not visible."""

    layers: int = 4
    """Number of blocks; 0 makes a model of single frames."""
    heads: int = 4
    """Attention heads; they divide the width."""
    width: int | None = 512
    """Length of a frame's state; null keeps that of the features, without a projection."""
    feedforward: int = 512
    """Width of the hidden layer in each block."""
    dropout: float = 0.1
    """On attention weights, hidden layers and the output of every branch."""
    drop_path: float = 0.0
    """Stochastic depth: chance that a clip skips a branch in training; rises to this at the last block."""
    norm: Literal["pre", "post"] = "pre"
    """Layer norm before each branch and at the end, or behind each branch as in the first transformer."""
    activation: Literal["gelu", "relu"] = "gelu"
    """Of the hidden layers."""
    positions: Positions = "sinusoidal"
    """How a frame knows its place; any of them takes windows longer than those of the training."""
    max_length: int = 512
    """Places of the learned positions, at least the window of the training; longer windows stretch them."""
    causal: bool = False
    """No output depends on a later frame."""
    context: int | None = None
    """Frames that each block looks back, and ahead unless causal; null looks at the whole window."""
    fill: Literal["learned", "zero"] = "learned"
    """What stands for the features of a frame that is masked, missing or padded."""
    attend_masked: bool = False
    """Whether frames look at masked and missing ones too, as in the paper; at padding they never do."""
    compile: bool = False
    """Compiles the blocks with torch.compile in training."""

    def __post_init__(self) -> None:
        chance = "a chance in [0, 1)"
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
            "fill": (self.fill in ("learned", "zero"), "learned or zero"),
        }
        check_settings("model.temporal", self, rules)
        if self.width is not None:
            self.check_width(self.width)

    def describe(self) -> dict[str, Any]:
        """Plain values for `from_description`."""
        return asdict(self)

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """The settings described, without compiling."""
        return cls(**{**description, "compile": False})

    def check_width(self, width: int) -> None:
        """Raises a UsageError if a width does not go with the heads and positions."""
        if self.layers and width % self.heads:
            raise UsageError(f"model.temporal: heads ({self.heads}) must divide width ({width})")
        pairs = {"sinusoidal": width, "rotary": width // self.heads}.get(self.positions, 0)
        if self.layers and pairs % 2:
            raise UsageError(
                f"model.temporal: {self.positions} positions come in pairs, so width ({width}) divided by "
                f"{1 if self.positions == 'sinusoidal' else self.heads} must be even"
            )


class Block(nn.Module):
    """One transformer layer: attention, then a hidden layer, each added to what came in."""

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

    def forward(self, x: Tensor, sight: AttentionMask, turn: Rotation | None) -> Tensor:
        """From (B, T, width) to (B, T, width)."""
        first, second = self.norms
        if self.pre:
            x = x + self._branch(self.attention(first(x), sight, turn))
            return x + self._branch(self.hidden(second(x)))
        x = first(x + self._branch(self.attention(x, sight, turn)))
        after: Tensor = second(x + self._branch(self.hidden(x)))
        return after

    def _branch(self, x: Tensor) -> Tensor:
        """What is added of a branch: with dropout, and in training for some clips nothing at all."""
        x = self.dropout(x)
        if not self.training or self.drop_path == 0:
            return x
        stays = torch.rand(len(x), 1, 1, device=x.device) >= self.drop_path
        return torch.where(stays, x / (1 - self.drop_path), 0.0)


class Blocks(nn.Module):
    """The layers in a row; a module of its own, for this is what torch.compile gets."""

    def __init__(self, settings: TemporalSettings, *, width: int) -> None:
        super().__init__()
        last = max(settings.layers - 1, 1)
        self.blocks = nn.ModuleList(
            Block(settings, width=width, drop_path=settings.drop_path * depth / last)
            for depth in range(settings.layers)
        )
        ends = settings.norm == "pre" and settings.layers
        self.norm = nn.LayerNorm(width) if ends else nn.Identity()

    def forward(self, x: Tensor, sight: AttentionMask, turn: Rotation | None) -> Tensor:
        """From (B, T, width) to (B, T, width)."""
        for block in self.blocks:
            x = block(x, sight, turn)
        normed: Tensor = self.norm(x)
        return normed


class TemporalEncoder(nn.Module):
    """Turns the features of frames into states that know the frames around them.

    A frame that is not visible holds the fill. It looks at visible frames and at itself; nothing looks at
    it (with `attend_masked` frames do, but never at padding). So no output of a frame depends on padding,
    nor on what lies under an invisible frame, and a clip without any visible frame has finite outputs.

    Attributes:
        settings: As given.
        width: Length of a state.
    """

    def __init__(self, settings: TemporalSettings, *, dim: int) -> None:
        """`dim` is the length of a feature vector (D)."""
        super().__init__()
        self.settings = settings
        self.width = width = settings.width or dim
        settings.check_width(width)
        if settings.fill == "learned":
            self.fill = nn.Parameter(torch.empty(dim))
            nn.init.normal_(self.fill, std=0.02)
        else:
            self.register_buffer("fill", torch.zeros(dim), persistent=False)
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

    def forward(
        self, features: Tensor, *, visible: Tensor, present: Tensor, complete: bool = False
    ) -> Tensor:
        """Gives the state of every frame.

        Args:
            features: float (B, T, D); whatever stands where a frame is not visible is ignored.
            visible: bool (B, T).
            present: bool (B, T), False on padding.
            complete: The caller knows that every frame is visible: faster, the outputs are the same.

        Returns:
            float (B, T, width).
        """
        settings = self.settings
        x: Tensor = torch.where(visible[..., None], features.float(), self.fill)  # (B, T, D)
        x = self.project(x).float()  # (B, T, width); the sum of all branches stays float32
        if not settings.layers:
            return x
        length, device = x.shape[1], x.device
        turn = None
        if settings.positions == "rotary":
            turn = rotation(length, self.width // settings.heads, device)
        elif settings.positions == "sinusoidal":
            x = x + sinusoidal(length, self.width, device)
        elif self.learned is not None:
            x = x + self.learned(length)
        keys = present if settings.attend_masked else visible
        sight = look(
            length,
            keys=None if complete else keys,
            causal=settings.causal,
            context=settings.context,
            device=device,
        )
        states: Tensor = self.blocks(self.dropout(x), sight, turn)
        return states
