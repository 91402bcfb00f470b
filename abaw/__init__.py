"""Frame-level affect from video.

`abaw.load(checkpoint)` gives a trained model; `abaw.__version__` names the release.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from abaw.inference.predictor import Predictor as Predictor
    from abaw.inference.predictor import load as load

    __version__: str
else:

    def __getattr__(name: str) -> Any:
        """Fetches a public name when it is asked for: torch takes seconds to import."""
        if name in ("load", "Predictor"):
            if "torch" not in sys.modules:  # later it would change nothing but the user's environment
                from abaw.threads import wait_passively

                wait_passively()
            from abaw.inference import predictor

            return getattr(predictor, name)
        if name == "__version__":
            from importlib.metadata import version

            return version("abaw")
        raise AttributeError(f"module 'abaw' has no attribute {name!r}")
