"""From a checkpoint to predictions in three lines, without Lightning, configuration or data."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from abaw.batch import Batch
from abaw.errors import AbawError, UsageError
from abaw.evaluation.calibration import Calibration, calibration_in
from abaw.evaluation.stitching import Stitcher
from abaw.evaluation.tracks import Track, track_frame
from abaw.model.checkpoints import load_checkpoint, network_weights
from abaw.model.network import Network
from abaw.tasks import Task
from abaw.windows import cut, window_at

_MUCH_LARGER = 2  # times the side of the training's crops

_TOO_BLUE = 10  # levels; grey faces, bluish light and noise stay below

_LOOKED_AT = 64  # frames of a video


class Predictor:
    """A trained network with its own pre-processing and label names.

    Args:
        network: In evaluation mode, on its device.
        window: Frames the network sees at once (T).
        stride: Frames of the window from one start to the next.
        step: Distance between the frames of a window, in frames of the video.
        batch_size: Windows per pass.
        calibration: Applied to every prediction; null leaves them raw.
        frame_size: Side of the crops that the network was trained on, in pixels; null where it is unknown.
    """

    def __init__(
        self,
        network: Network,
        *,
        window: int,
        stride: int,
        step: int = 1,
        batch_size: int = 8,
        calibration: Calibration | None = None,
        frame_size: int | None = None,
    ) -> None:
        self.network = network
        self.window = window
        self.stride = stride
        self.step = step
        self.batch_size = batch_size
        self.calibration = calibration
        self.frame_size = frame_size

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What is predicted."""
        return self.network.tasks

    def predict_frames(
        self,
        frames: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
        visible: NDArray[np.bool_] | None = None,
    ) -> pd.DataFrame:
        """Predicts every frame of one video.

        What is probably no aligned face in RGB is predicted with a warning: crops more than twice as large as
        those of the training, and faces that are bluer than red.

        Args:
            frames: uint8 (N, S, S, 3), or a list of N frames: RGB, faces aligned as in the training data.
            visible: bool (N,), False where there is no face; null says that every frame shows one.

        Returns:
            The columns of a track: `frame` (from 1), `seen`, and per task the predicted values: valence and
            arousal in [-1, 1], probabilities of expressions and action units.

        Raises:
            AbawError: The array is not a video of square crops.
        """
        frames = _checked_frames(frames)
        seen = np.ones(len(frames), bool) if visible is None else np.asarray(visible, bool)
        if seen.shape != (len(frames),):
            raise AbawError(f"visible: expected shape ({len(frames)},), one per frame, got {seen.shape}")
        for doubt in _doubts(frames, seen, self.frame_size):
            warnings.warn(doubt, stacklevel=2)
        stitcher: Stitcher[Task] = Stitcher(lambda _: len(frames))
        starts = cut(len(frames), self.window, self.stride, self.step)
        for first in range(0, len(starts), self.batch_size):
            clips = [self._clip(start, frames, seen) for start in starts[first : first + self.batch_size]]
            batch = Batch.cat(clips)
            batch = batch.with_visible(batch.visible).to(self._device)
            with torch.inference_mode():
                predictions = self.network.predictions(self.network(batch))
            stitcher.add(batch.where, predictions, batch.visible)
        (video,) = stitcher.flush()
        values = {str(task): tensor.cpu().numpy() for task, tensor in video.predictions.items()}
        track = Track(video="", seen=video.seen.cpu().numpy(), **values)
        return track_frame(track if self.calibration is None else self.calibration.apply(track))

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _clip(self, start: int, frames: NDArray[np.uint8], seen: NDArray[np.bool_]) -> Batch:
        window = window_at(0, start, len(frames), self.window, self.step)
        which = slice(window.start, window.stop, window.step)
        n = len(window)

        def padded(values: Tensor) -> Tensor:  # (n, ...) -> (1, T, ...)
            return torch.cat([values, values.new_zeros((self.window - n, *values.shape[1:]))])[None]

        no_label = torch.zeros(1, self.window, dtype=torch.bool)
        return Batch(
            frames=padded(torch.from_numpy(np.ascontiguousarray(frames[which]))),
            present=padded(torch.ones(n, dtype=torch.bool)),
            visible=padded(torch.from_numpy(seen[which].copy())),
            va=torch.zeros(1, self.window, 2),
            va_valid=no_label,
            expr=torch.zeros(1, self.window, dtype=torch.long),
            expr_valid=no_label,
            au=torch.zeros(1, self.window, 12),
            au_valid=no_label[..., None].expand(-1, -1, 12),
            where=(window,),
            n_bad_frames=torch.zeros(1, dtype=torch.long),
        )


def _checked_frames(frames: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The frames of a video as one array uint8 (N, S, S, 3).

    Raises:
        AbawError: They are something else.
    """
    try:
        video = np.asarray(frames)
    except ValueError as error:  # of NumPy, for frames of several shapes
        shapes = sorted({np.shape(frame) for frame in frames})
        raise AbawError(
            f"frames: all need the same shape, got {shapes[0]} and {shapes[1]}; resize the crops to one size"
        ) from error
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[3] != 3 or len(video) == 0:
        raise AbawError(
            f"frames: expected RGB crops, uint8 (N, S, S, 3) with N >= 1, got {video.dtype} {video.shape}"
        )
    height, width = video.shape[1:3]
    if height != width or not height:
        raise AbawError(
            f"frames: {width} x {height} pixels are no aligned face crop, which is square; the network knows"
            " faces cut out and aligned as its training images are (cropped_aligned/ of the data set), not"
            " whole pictures; find and align the face of every frame first"
        )
    return video


def _doubts(frames: NDArray[np.uint8], seen: NDArray[np.bool_], frame_size: int | None) -> Iterator[str]:
    """Why the seen ones of frames (N, S, S, 3) are probably not aligned face crops in RGB, a sentence each.

    Skin of any tone reflects more red than blue: in the middle half of aligned crops the mean of red lies 40
    to 80 levels above that of blue, on generated and on real faces. The median over some frames decides.
    """
    size = frames.shape[1]
    if frame_size is not None and size > _MUCH_LARGER * frame_size:
        yield (
            f"frames: crops of {size} x {size} pixels are much larger than the {frame_size} x {frame_size} of"
            " the training; are they aligned face crops, or whole pictures?"
        )
    places = np.flatnonzero(seen)
    if not len(places):
        return
    middle = slice(size // 4, size - size // 4)
    some = frames[places[:: -(-len(places) // _LOOKED_AT)], middle, middle]
    excess = some[..., 2].mean((1, 2)) - some[..., 0].mean((1, 2))  # (n,), blue over red
    if (blue := float(np.median(excess))) > _TOO_BLUE:
        yield (
            f"frames: the faces are bluer than red, by {blue:.0f} of 255 levels; are they BGR, as of OpenCV?"
            " Turn it into RGB with frames[..., ::-1]"
        )


def load(checkpoint: str | Path, *, device: str | None = None, calibrated: bool = False) -> Predictor:
    """Loads a checkpoint for prediction.

    Args:
        checkpoint: A file that `abaw fit` left, such as `runs/demo/checkpoints/best.ckpt`.
        device: Where to compute; null takes a GPU if there is one.
        calibrated: Apply the calibration that `abaw calibrate` stored in the checkpoint.

    Returns:
        An object whose `predict_frames` turns an array of faces into a table.

    Raises:
        AbawError: The file is missing, damaged or of another kind, or holds no calibration to apply; nothing
            in it is ever executed.
        UsageError: There is no such device.
    """
    where = _usable(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    content = load_checkpoint(checkpoint)
    about: dict[str, Any] = content["abaw"]
    network = Network.from_description(about["network"])
    network.load_state_dict(network_weights(content))
    network.eval().requires_grad_(False)
    calibration = calibration_in(content, Path(checkpoint)) if calibrated else None
    return Predictor(
        network.to(where), **about["windows"], calibration=calibration, frame_size=about.get("frame_size")
    )


def _usable(device: str) -> torch.device:
    """The device of that name, on which a tensor can be made."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # the latter where torch is built without CUDA
        reason = str(error).partition("\n")[0][:200]
        raise UsageError(
            f"device: {device!r} cannot be used ({reason}); give cpu, or cuda or cuda:1 for a GPU"
        ) from error
