"""Prediction from a checkpoint in Python, without Lightning, configuration or data."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
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

_MUCH_LARGER = 2  # relative to the side of the training crops
_TOO_BLUE = 10  # levels of 255; grey faces, bluish light and noise stay below
_SAMPLED = 64  # frames of a video that are checked


@dataclass(eq=False)
class Predictor:
    """A trained network with its pre-processing and windows.

    Attributes:
        network: Network in evaluation mode, on its device.
        window: Number of frames per window (T).
        stride: Distance between the starts of windows, in frames of the window.
        step: Distance between the frames of a window, in frames of the video.
        batch_size: Number of windows per forward pass.
        calibration: Calibration of all predictions; null: none.
        frame_size: Side of the training crops in pixels; null: unknown.
    """

    network: Network
    _: KW_ONLY
    window: int
    stride: int
    step: int = 1
    batch_size: int = 8
    calibration: Calibration | None = None
    frame_size: int | None = None

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The predicted tasks."""
        return self.network.tasks

    def predict_frames(
        self,
        frames: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
        visible: NDArray[np.bool_] | None = None,
    ) -> pd.DataFrame:
        """Predictions for every frame of one video.

        Warns if the frames are probably not aligned faces in RGB: crops more than twice as large as those of
        the training, or faces with more blue than red.

        Args:
            frames: uint8 (N, S, S, 3), or a list of N frames: RGB, faces aligned as in the training data.
            visible: bool (N,), False for frames without a face; null: all frames have one.

        Returns:
            The columns of a track: `frame` (from 1), `seen`, and per task the predicted values: valence and
            arousal in [-1, 1], probabilities of expressions and action units.

        Raises:
            AbawError: The frames are not square uint8 crops of one shape.
        """
        frames = _checked_frames(frames)
        seen = np.ones(len(frames), bool) if visible is None else np.asarray(visible, bool)
        if seen.shape != (len(frames),):
            raise AbawError(f"visible: expected shape ({len(frames)},), one per frame, got {seen.shape}")
        for message in _input_warnings(frames, seen, self.frame_size):
            warnings.warn(message, stacklevel=2)
        features = self._features(frames, np.flatnonzero(seen))
        stitcher = Stitcher(lambda _: len(frames))
        starts = cut(len(frames), self.window, self.stride, self.step)
        for first in range(0, len(starts), self.batch_size):
            clips = [
                self._clip(start, features, torch.from_numpy(seen))
                for start in starts[first : first + self.batch_size]
            ]
            batch = Batch.cat(clips).to(self._device)
            with torch.inference_mode():
                predictions = self.network.predictions(self.network(batch))
            stitcher.add(batch.where, predictions, batch.visible)
        (video,) = stitcher.flush()
        values = {task: tensor.cpu().numpy() for task, tensor in video.predictions.items()}
        track = Track(video="", seen=video.seen.cpu().numpy(), values=values)
        return track_frame(track if self.calibration is None else self.calibration.apply(track))

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    @torch.inference_mode()
    def _features(self, frames: NDArray[np.uint8], places: NDArray[np.int64]) -> Tensor:
        """The features of all frames, (N, D) on the device; those at `places` pass through the backbone."""
        features = torch.zeros(len(frames), self.network.dim, device=self._device)
        for some in torch.split(torch.from_numpy(places), self.batch_size * self.window):
            images = torch.from_numpy(frames[some.numpy()]).to(self._device)
            features[some.to(self._device)] = self.network.encode_frames(images)
        return features

    def _clip(self, start: int, features: Tensor, visible: Tensor) -> Batch:
        window = window_at(0, start, len(visible), self.window, self.step)
        which = slice(window.start, window.stop, window.step)

        def padded(values: Tensor) -> Tensor:  # (n, ...) -> (1, T, ...)
            return torch.cat([values, values.new_zeros((self.window - len(window), *values.shape[1:]))])[None]

        return Batch(
            features=padded(features[which]),
            present=padded(torch.ones(len(window), dtype=torch.bool)),
            visible=padded(visible[which]),
            where=(window,),
            n_bad_frames=torch.zeros(1, dtype=torch.long),
        )


def _checked_frames(frames: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The frames of a video as one array uint8 (N, S, S, 3); raises AbawError for other shapes or dtypes."""
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
            f"frames: {width} x {height} pixels are not an aligned face crop, which is square; detect, crop"
            " and align the face of every frame as in the training images (cropped_aligned/)"
        )
    return video


def _input_warnings(
    frames: NDArray[np.uint8], seen: NDArray[np.bool_], frame_size: int | None
) -> Iterator[str]:
    """Warnings that visible frames (N, S, S, 3) are probably not aligned face crops in RGB.

    Skin of any tone reflects more red than blue: in the middle half of aligned crops the mean of red is 40 to
    80 levels above that of blue, on generated and real faces. The median over sampled frames is used.
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
    some = frames[places[:: -(-len(places) // _SAMPLED)], middle, middle]
    excess = some[..., 2].mean((1, 2)) - some[..., 0].mean((1, 2))  # (n,), blue minus red
    if (blue := float(np.median(excess))) > _TOO_BLUE:
        yield (
            f"frames: the faces are bluer than red, by {blue:.0f} of 255 levels; are they BGR, as of OpenCV?"
            " Turn it into RGB with frames[..., ::-1]"
        )


def load(
    checkpoint: str | Path, *, device: str | None = None, calibrated: bool = False, trust_code: bool = False
) -> Predictor:
    """Loads a checkpoint for prediction; no code is executed unless it is trusted.

    Args:
        checkpoint: A checkpoint of `abaw fit`, such as `runs/demo/checkpoints/best.ckpt`.
        device: Device of the network; null: a GPU if there is one.
        calibrated: Whether to apply the calibration that `abaw calibrate` stored in the checkpoint.
        trust_code: Whether to import a task of the checkpoint that is not described by plain values.

    Returns:
        A predictor, whose `predict_frames` returns a table of predictions.

    Raises:
        AbawError: The file is missing, damaged or not a checkpoint of abaw, or has no calibration.
        UsageError: The device is not available.
    """
    target = _available(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    loaded = load_checkpoint(checkpoint)
    metadata: dict[str, Any] = loaded["abaw"]
    try:
        network = Network.from_description(metadata["network"], trust_code=trust_code)
    except UsageError as error:
        raise UsageError(f"{checkpoint}: {error}") from error
    network.load_state_dict(network_weights(loaded))
    network.eval().requires_grad_(False)
    calibration = calibration_in(loaded, Path(checkpoint)) if calibrated else None
    return Predictor(
        network.to(target),
        **metadata["windows"],
        calibration=calibration,
        frame_size=metadata.get("frame_size"),
    )


def _available(device: str) -> torch.device:
    """The device with a name, checked by allocating a tensor."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # AssertionError if torch is built without CUDA
        reason = str(error).partition("\n")[0][:200]
        raise UsageError(
            f"device: {device!r} cannot be used ({reason}); give cpu, or cuda or cuda:1 for a GPU"
        ) from error
