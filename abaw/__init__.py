"""Frame-level affect from video.

`abaw.load(checkpoint)` gives a trained model; `abaw.__version__` names the release.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """Fetches the door's two words when they are asked for: torch takes seconds to import."""
    if name == "load":
        from abaw.apply.predictor import load

        return load
    if name == "__version__":
        from importlib.metadata import version

        return version("abaw")
    raise AttributeError(f"module 'abaw' has no attribute {name!r}")
