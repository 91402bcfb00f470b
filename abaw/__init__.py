"""Frame-level affect from video: valence-arousal, expressions and action units.

A trained checkpoint, or the folder of a run, predicts a table with a row per face and frame of any video:

    model = abaw.load("runs/mtl")
    table = model.predict_video("interview.mp4")
    table.groupby("face_id")[["valence", "arousal"]].mean()

Long videos come in pieces, while they are read:

    for piece in model.stream_video("long.mp4"):
        ...

Faces that are aligned already, as an array or an iterator of frames, give a row per frame:

    table = model.predict_frames(crops, fps=30)  # uint8 (N, 112, 112, 3), RGB

`load(..., device="cuda", calibrated=True)` chooses the device, and applies a stored calibration. `Task`
describes a task of your own, `Batch` is what a network of your own gets.

Training and evaluation are subcommands: see `abaw --help`.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from abaw.batch import Batch as Batch
    from abaw.inference.predictor import Predictor as Predictor
    from abaw.inference.predictor import load as load
    from abaw.tasks import Task as Task

    __version__: str
else:
    _MODULES = {
        "Batch": "abaw.batch",
        "Predictor": "abaw.inference.predictor",
        "Task": "abaw.tasks",
        "load": "abaw.inference.predictor",
    }

    def __getattr__(name: str) -> Any:
        """Imports a public name when it is first used: torch takes seconds to import."""
        if name == "__version__":
            from importlib.metadata import version

            return version("abaw")
        if name not in _MODULES:
            raise AttributeError(f"module 'abaw' has no attribute {name!r}")
        if name != "Task" and "torch" not in sys.modules:  # once torch is loaded this changes nothing in it
            from abaw.cli.threads import wait_passively

            wait_passively()
        return getattr(import_module(_MODULES[name]), name)

    def __dir__() -> list[str]:
        return [*_MODULES, "__version__"]
