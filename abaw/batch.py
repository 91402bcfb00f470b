"""Immutable, typed batch of clips, as passed from the data loader to the network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from abaw.tasks import Task, TaskLabels
from abaw.windows import Window


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """A batch of B clips of T frames. Masks are True where valid or visible; other values are undefined.

    Exactly one of `frames` and `features` is set. `where` is never moved to a device.

    Attributes:
        frames: uint8 (B, T, H, W, 3), RGB.
        features: float (B, T, D), cached backbone features.
        present: bool (B, T), False for padding after a short clip.
        visible: bool (B, T), True where the frame has an image or features: a subset of `present`.
        labels: The labels of every task, (B, T, ...) each; see `TaskLabels`.
        where: The windows of the B clips; `PADDING` for a clip that pads a rank.
        mask_noise: float32 (B, T), uniform in [0, 1); only in training.
        keep: int64 (M,), flat indices b * T + t of the visible frames; set by `with_visible`.
        n_bad_frames: int64 (B,), number of unreadable frames that were made invisible.
    """

    frames: Tensor | None = None
    features: Tensor | None = None
    present: Tensor
    visible: Tensor
    labels: Mapping[Task, TaskLabels[Tensor]] = field(default_factory=dict)
    where: tuple[Window, ...]
    mask_noise: Tensor | None = None
    keep: Tensor | None = None
    n_bad_frames: Tensor

    def __post_init__(self) -> None:
        if (self.frames is None) == (self.features is None):
            raise ValueError("a batch holds either frames or features")
        b, t = self.visible.shape
        checked = [
            ("present", self.present, (b, t)),
            ("mask_noise", self.mask_noise, (b, t)),
            ("n_bad_frames", self.n_bad_frames, (b,)),
        ]
        for task, labels in self.labels.items():
            checked.append((f"labels[{task}].values", labels.values, (b, t, *task.value_shape)))
            checked.append((f"labels[{task}].valid", labels.valid, (b, t, *task.valid_shape)))
        for name, tensor, shape in checked:
            if tensor is not None and tensor.shape != shape:
                raise ValueError(f"batch.{name} has shape {tuple(tensor.shape)}, expected {shape}")
        pixels = self.frames if self.frames is not None else self.features
        if pixels is None or pixels.shape[:2] != (b, t) or len(self.where) != b:
            raise ValueError(f"frames or features, and where, must hold {b} clips of {t} frames")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles small tensors as arrays, so that workers pass only the large one in shared memory.

        Each tensor in shared memory needs a connection, together a tenth of the loading time.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.present.device.type == "cpu":
            small = {name: value for name, value in values.items() if name not in ("frames", "features")}
            values |= _mapped(small, Tensor, Tensor.numpy)
        return _rebuilt, (values,)

    def __len__(self) -> int:
        """Number of clips (B)."""
        return len(self.where)

    @classmethod
    def cat(cls, clips: Sequence["Batch"]) -> "Batch":
        """Concatenates clips of equal length T along B; the collate function of the data loader."""
        if len(clips) == 1:
            return clips[0]

        def join(name: str) -> Any:
            values = [getattr(clip, name) for clip in clips]
            if name == "where":
                return tuple(window for value in values for window in value)
            if name == "labels":
                return {
                    task: TaskLabels(*map(torch.cat, zip(*(each[task] for each in values), strict=True)))
                    for task in values[0]
                }
            return None if values[0] is None else torch.cat(values)

        return cls(**{field.name: join(field.name) for field in fields(cls)})

    def with_visible(self, visible: Tensor) -> "Batch":
        """A copy with another `visible` (B, T) mask and the matching `keep`."""
        return replace(self, visible=visible, keep=visible.flatten().nonzero().squeeze(1))

    def _map(self, change: Any) -> "Batch":
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Batch(**_mapped(values, Tensor, change))

    def to(self, device: torch.device | str, **kwargs: Any) -> "Batch":
        """A copy on a device; copies to a GPU are non-blocking."""
        # Lightning sets non_blocking only for plain tensors
        queued = torch.device(device).type not in ("cpu", "mps")
        return self._map(lambda tensor: tensor.to(device, **{"non_blocking": queued} | kwargs))

    def copied(self) -> "Batch":
        """A copy in new memory, made by one thread, so that workers keep the other cores."""
        return self._map(lambda tensor: torch.from_numpy(tensor.numpy().copy()))

    def pin_memory(self) -> "Batch":
        """A copy in page-locked memory; the DataLoader calls it."""
        return self._map(lambda tensor: tensor.pin_memory())


def _rebuilt(values: dict[str, Any]) -> Batch:
    return Batch(**_mapped(values, np.ndarray, torch.from_numpy))


def _mapped(values: Mapping[str, Any], kind: type, change: Callable[[Any], Any]) -> dict[str, Any]:
    """The fields of a batch, with all arrays of a type changed, those of the labels too."""

    def changed(value: Any) -> Any:
        return change(value) if isinstance(value, kind) else value

    labels = {task: TaskLabels(*map(changed, each)) for task, each in values["labels"].items()}
    return {name: changed(value) for name, value in values.items()} | {"labels": labels}
