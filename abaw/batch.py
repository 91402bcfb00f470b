"""Immutable, typed batch of clips, as passed from the data loader to the network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from abaw.tasks import Task, TaskLabels
from abaw.windows import Window


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """A batch of B clips of T frames. Masks are True where valid or visible; other values are undefined.

    Exactly one of `frames` and `features` is set. `where`, `overlaps` and `complete` stay on the host.

    Attributes:
        frames: uint8 (M, H, W, 3), RGB, the images of the frames in `keep`.
        keep: int64 (M,), ascending, flat indices b * T + t of the frames with an image; None: all visible.
        features: float (B, T, D), backbone features.
        present: bool (B, T), False for padding after a short clip.
        visible: bool (B, T), a subset of `present`: the frame has an image or features, and is not masked.
        labels: The labels of every task, (B, T, ...) each; see `TaskLabels`.
        where: The windows of the B clips; `PADDING` for a clip that pads a rank.
        overlaps: Per clip, the number of leading frames whose images are left out, because the clip before,
            of this or the previous batch, ends with them; empty in training.
        complete: Whether all frames are visible; None: computed from `visible`.
        n_bad_frames: int64 (B,), number of unreadable frames that were made invisible.
    """

    frames: Tensor | None = None
    keep: Tensor | None = None
    features: Tensor | None = None
    present: Tensor
    visible: Tensor
    labels: Mapping[Task, TaskLabels[Tensor]] = field(default_factory=dict)
    where: tuple[Window, ...]
    overlaps: tuple[int, ...] = ()
    complete: bool | None = None
    n_bad_frames: Tensor

    def __post_init__(self) -> None:
        if (self.frames is None) == (self.features is None):
            raise ValueError("a batch holds either frames or features")
        b, t = self.visible.shape
        if self.frames is not None and self.keep is None:
            object.__setattr__(self, "keep", self.visible.flatten().nonzero().squeeze(1))
        if self.complete is None:
            object.__setattr__(self, "complete", bool(self.visible.all()))
        checked = [("present", self.present, (b, t)), ("n_bad_frames", self.n_bad_frames, (b,))]
        for task, labels in self.labels.items():
            checked.append((f"labels[{task}].values", labels.values, (b, t, *task.value_shape)))
            checked.append((f"labels[{task}].valid", labels.valid, (b, t, *task.valid_shape)))
        for name, tensor, shape in checked:
            if tensor.shape != shape:
                raise ValueError(f"batch.{name} has shape {tuple(tensor.shape)}, expected {shape}")
        if self.keep is not None and self.frames is not None and len(self.frames) != len(self.keep):
            raise ValueError(f"batch.frames holds {len(self.frames)} images, expected {len(self.keep)}")
        if (self.features is not None and self.features.shape[:2] != (b, t)) or len(self.where) != b:
            raise ValueError(f"features and where must hold {b} clips of {t} frames")

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
            if name in ("where", "overlaps"):
                return tuple(each for value in values for each in value)
            if name == "complete":
                return all(values)
            if name == "keep" and values[0] is not None:
                n = clips[0].visible.shape[1]
                firsts = np.cumsum([0, *(len(clip) * n for clip in clips)]).tolist()
                return torch.cat([value + first for value, first in zip(values, firsts, strict=False)])
            if name == "labels":
                return {
                    task: TaskLabels(*map(torch.cat, zip(*(each[task] for each in values), strict=True)))
                    for task in values[0]
                }
            return None if values[0] is None else torch.cat(values)

        return cls(**{field.name: join(field.name) for field in fields(cls)})

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
