"""Prediction from a checkpoint in Python, without Lightning, configuration or data."""

import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from abaw.batch import Batch
from abaw.errors import AbawError, UsageError
from abaw.evaluation.calibration import Calibration, calibration_in
from abaw.evaluation.tracks import Track, track_frame
from abaw.inference.analysis import Analysis, AnalysisSettings
from abaw.inference.face_tables import face_table, top_expression
from abaw.inference.faces import TEMPLATE_SIZE, find_detector
from abaw.inference.inputs import CropsOption, open_reader
from abaw.inference.sequences import Predicted, SequencePredictor
from abaw.model.checkpoints import load_checkpoint, network_weights
from abaw.model.model_folder import fetch_model_folder, is_hub_name, is_model_folder, read_model_folder
from abaw.model.network import Network
from abaw.tasks import EXPR, Task
from abaw.windows import Window

_MUCH_LARGER = 2  # relative to the side of the training crops
_TOO_BLUE = 10  # levels of 255; grey faces, bluish light and noise stay below
_SAMPLED = 64  # frames of a video that are checked


@dataclass(eq=False, repr=False)
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
        bf16: Whether to use bfloat16 where `bf16-mixed` training does.
        checkpoint: File of the weights; empty: unknown.
    """

    network: Network
    _: KW_ONLY
    window: int
    stride: int
    step: int = 1
    batch_size: int = 8
    calibration: Calibration | None = None
    frame_size: int | None = None
    bf16: bool = False
    checkpoint: str = ""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The predicted tasks."""
        return self.network.tasks

    @property
    def dim(self) -> int:
        """Feature dimension (D)."""
        return self.network.dim

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.network.parameters()).device

    def __repr__(self) -> str:
        parts = [
            ", ".join(map(str, self.tasks)),
            f"windows of {self.window} frames",
            "" if self.frame_size is None else f"crops of {self.frame_size} x {self.frame_size} pixels",
            f"on {self.device}{' in bfloat16' if self.bf16 else ''}",
            "calibrated" if self.calibration is not None else "",
            self.checkpoint,
        ]
        return f"Predictor({'; '.join(part for part in parts if part)})"

    def predict_frames(
        self,
        frames: NDArray[np.uint8] | Iterable[NDArray[np.uint8]],
        visible: NDArray[np.bool_] | None = None,
        *,
        fps: float | None = None,
    ) -> pd.DataFrame:
        """Predictions for every frame of one video.

        Warns if the frames are probably not aligned faces in RGB: crops more than twice as large as those of
        the training, or faces with more blue than red.

        Args:
            frames: uint8 (N, S, S, 3), or N frames one by one, from a list or any iterator: RGB, faces
                aligned as in the training data. Of an iterator few frames are in memory at once.
            visible: bool (N,), False for frames without a face; null: all frames have one.
            fps: Frames per second; null: unknown.

        Returns:
            The columns of a track: `frame` (from 1), `seen`, and per task the predicted values: valence and
            arousal in [-1, 1], probabilities of expressions and action units; besides `timestamp` in seconds
            if `fps` is given, and `expression`, the most probable one.

        Raises:
            AbawError: The frames are not square uint8 crops of one shape.
        """
        shown = None if visible is None else np.asarray(visible, bool)
        features, n = [np.empty((0, self.dim), np.float32)], 0
        shape: tuple[int, ...] | None = None
        for piece in _pieces(frames, self.batch_size * self.window, shown):
            some = _checked_frames(piece, shape)
            seen = np.ones(len(some), bool) if shown is None else shown[n : n + len(some)]
            if len(seen) < len(some):
                raise AbawError(f"visible: has {len(shown)} values, but there are more frames")  # type: ignore[arg-type]
            if shape is None:
                for message in _input_warnings(some, seen, self.frame_size):
                    warnings.warn(message, stacklevel=2)
            shape, n = some.shape[1:], n + len(some)
            encoded = np.zeros((len(some), self.dim), np.float32)
            encoded[seen] = self.encode(some[seen])
            features.append(encoded)
        if shape is None:
            _checked_frames(np.asarray([]), None)  # raises the error of no frames
        shown = np.ones(n, bool) if shown is None else shown
        if shown.shape != (n,):
            raise AbawError(f"visible: expected shape ({n},), one per frame, got {shown.shape}")
        sequence = SequencePredictor(self)
        whole = Predicted.cat([*sequence.push(np.concatenate(features), shown), *sequence.finish()])
        track = Track(video="", seen=shown, values=whole.values)
        table = track_frame(track if self.calibration is None else self.calibration.apply(track))
        if fps is not None:
            table.insert(1, "timestamp", np.arange(n) / fps)
        if EXPR in whole.values:
            table["expression"] = top_expression(table[list(EXPR.columns)].to_numpy())
        return table

    def predict_video(self, path: str | Path, **options: Any) -> pd.DataFrame:
        """Predictions for every face in every frame of a video, an image or a folder of images.

        Args:
            path: The video; a folder of aligned crops, as in `cropped_aligned`, is recognised.
            options: Those of `stream_video`.

        Returns:
            One row per face and frame, and one for a frame without a face: `frame` (from 0), `timestamp` in
            seconds, `face_id`, `success`, the box and the score of the face, action units, valence, arousal
            and expressions; frames without the face are filled from context, with `success` 0.

        Raises:
            AbawError: The video cannot be read, or the detector is missing.
        """
        return pd.concat(list(self.stream_video(path, **options)), ignore_index=True)

    def stream_video(
        self,
        path: str | Path,
        *,
        detector: str | Path | None = None,
        settings: AnalysisSettings | None = None,
        crops: CropsOption = "auto",
        fps: float | None = None,
    ) -> Iterator[pd.DataFrame]:
        """As `predict_video`, in pieces that come as soon as they are final, with bounded memory.

        Warns at the end if the video is truncated or damaged.

        Args:
            path: The video, image or folder of images.
            detector: File of the face detector YuNet; null: from the cache or the Hugging Face hub.
            settings: Settings of the analysis; null: the default, with crops of the size of the training.
            crops: Whether images are aligned crops.
            fps: Frames per second of a folder of images; null: unknown.

        Raises:
            AbawError: The video cannot be read, or the detector is missing.
        """
        reader = open_reader(Path(path), crops=crops, fps=fps)
        found = None if reader.aligned else find_detector(None if detector is None else Path(detector))
        chosen = settings or AnalysisSettings(crop_size=self.frame_size or TEMPLATE_SIZE)
        for rows in Analysis(reader, self, found, chosen, calibration=self.calibration):
            yield face_table(rows)
        if reader.problem:
            warnings.warn(f"{path}: {reader.problem}", stacklevel=2)

    @torch.inference_mode()
    def encode(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The features (M, D) of aligned faces uint8 (M, S, S, 3), RGB.

        Raises:
            AbawError: The network was trained on cached features and has no backbone.
        """
        features = np.empty((len(crops), self.dim), np.float32)
        size = self.batch_size * self.window
        for first in range(0, len(crops), size):
            images = torch.from_numpy(np.ascontiguousarray(crops[first : first + size])).to(self.device)
            with self._autocast():
                encoded = self.network.encode_frames(images)
            features[first : first + size] = encoded.float().cpu().numpy()
        return features

    @torch.inference_mode()
    def predict_windows(
        self,
        features: NDArray[np.float32],
        visible: NDArray[np.bool_],
        present: NDArray[np.bool_],
    ) -> dict[Task, NDArray[np.float32]]:
        """Per task the predictions (B, T, K) of windows of features (B, T, D); see `FrameModel`."""
        b, t = visible.shape
        batch = Batch(
            features=torch.from_numpy(features),
            present=torch.from_numpy(present),
            visible=torch.from_numpy(visible),
            where=(Window(0, 0, t),) * b,
            n_bad_frames=torch.zeros(b, dtype=torch.long),
        ).to(self.device)
        with self._autocast():
            outputs = self.network.predictions(self.network(batch))
        return {task: values.float().cpu().numpy() for task, values in outputs.items()}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


def _pieces(
    frames: NDArray[np.uint8] | Iterable[NDArray[np.uint8]], size: int, visible: NDArray[np.bool_] | None
) -> Iterator[Any]:
    """Up to `size` frames at a time; an array is checked whole."""
    if isinstance(frames, np.ndarray):
        whole = _checked_frames(frames, None)
        if visible is not None and visible.shape != (len(whole),):
            raise AbawError(f"visible: expected shape ({len(whole)},), one per frame, got {visible.shape}")
        for first in range(0, len(whole), size):
            yield whole[first : first + size]
        return
    rest = iter(frames)
    while piece := list(itertools.islice(rest, size)):
        yield piece


def _checked_frames(frames: Any, shape: tuple[int, ...] | None) -> NDArray[np.uint8]:
    """Frames as one array uint8 (n, S, S, 3), each of a shape unless it is None.

    Raises:
        AbawError: They have other shapes or dtypes.
    """
    shapes = sorted({np.shape(frame) for frame in frames} | ({shape} if shape else set()))
    if len(shapes) > 1:
        raise AbawError(
            f"frames: all need the same shape, got {shapes[0]} and {shapes[1]}; resize the crops to one size"
        )
    video = np.asarray(frames)
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[3] != 3 or len(video) == 0:
        raise AbawError(
            f"frames: expected RGB crops, uint8 (N, S, S, 3) with N >= 1, got {video.dtype} {video.shape}"
        )
    height, width = video.shape[1:3]
    if height != width or not height:
        raise AbawError(
            f"frames: {width} x {height} pixels are not an aligned face crop, which is square; detect, crop"
            " and align the face of every frame as in the training images (cropped_aligned/), or give the"
            " video to predict_video"
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
    """Loads a model for prediction; no code is executed unless it is trusted.

    Args:
        checkpoint: A checkpoint of `abaw fit`, such as `runs/demo/checkpoints/best.ckpt`; the folder of a
            run, which stands for its best one; a folder of `abaw export`; or the name of such a model on the
            Hugging Face hub, owner/name.
        device: Device of the network; null: a GPU if there is one.
        calibrated: Whether to apply the calibration that `abaw calibrate` stored in the checkpoint.
        trust_code: Whether to import a task of the checkpoint that is not described by plain values.

    Returns:
        A predictor, whose `predict_frames` returns a table of predictions.

    Raises:
        AbawError: The file is missing, damaged or not a model of abaw, or has no calibration; or the hub
            cannot be reached.
        UsageError: The device is not available.
    """
    target = _available(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    checkpoint, loaded = open_model(checkpoint)
    metadata: dict[str, Any] = loaded["abaw"]
    network = rebuilt_network(checkpoint, loaded, trust_code=trust_code)
    calibration = calibration_in(loaded, Path(checkpoint)) if calibrated else None
    return Predictor(
        network.to(target),
        **metadata["windows"],
        calibration=calibration,
        frame_size=metadata.get("frame_size"),
        checkpoint=str(checkpoint),
    )


def rebuilt_network(path: Path, loaded: Mapping[str, Any], *, trust_code: bool = False) -> Network:
    """The network of a model on the CPU, in evaluation mode.

    Args:
        path: Path of the model, for messages.
        loaded: Its content, from `open_model`.
        trust_code: Whether to import a task that is not described by plain values.

    Raises:
        UsageError: A task is code that is not trusted.
    """
    try:
        network = Network.from_description(loaded["abaw"]["network"], trust_code=trust_code)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    network.load_state_dict(network_weights(loaded))
    return network.eval().requires_grad_(False)


def open_model(name: str | Path) -> tuple[Path, dict[str, Any]]:
    """The path and the content of a model, in the form of a loaded checkpoint; `name` as of `load`.

    Raises:
        AbawError: It is missing, damaged or not a model of abaw, or the hub cannot be reached.
    """
    path = Path(name)
    if is_hub_name(str(name)):
        path = fetch_model_folder(str(name))
    if is_model_folder(path):
        return path, read_model_folder(path)
    if path.is_dir():
        path = path / "checkpoints/best.ckpt"
    return path, load_checkpoint(path)


def _available(device: str) -> torch.device:
    """The device with a name, checked by allocating a tensor."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # AssertionError if torch is built without CUDA
        reason = str(error).partition("\n")[0][:200]
        raise UsageError(
            f"device: {device!r} cannot be used ({reason}); give cpu, or cuda or cuda:1 for a GPU"
        ) from error
