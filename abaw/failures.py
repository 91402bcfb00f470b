"""What the libraries raise in the middle of a run, in words that a user can act on."""

from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch.distributed import DistError

from abaw.errors import AbawError, UsageError


def in_words(error: Exception, verb: str) -> AbawError | None:
    """The message for a failure of a user's reason; None where only a traceback helps.

    Args:
        error: What was raised.
        verb: What was being done.
    """
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, MisconfigurationException):
        return UsageError(f"{verb}: {error}")
    if isinstance(error, DistError) or "/gloo/" in text:
        return AbawError(
            f"{verb}: the connection to another process of the run broke ({text[:120]}); that process said"
            " why, unless it was killed, as for want of memory"
        )
    if isinstance(error, RuntimeError) and text.startswith("DataLoader worker"):
        return AbawError(
            f"{verb}: a loader process ended ({text[:120]}); where memory is short, lower data.workers, or"
            " give the container more shared memory (--shm-size)"
        )
    if isinstance(error, RuntimeError) and "loading state_dict" in text:
        return UsageError(
            f"{verb}: the checkpoint holds another network than the configuration; use that of its own run,"
            " with --run DIR and without --config"
        )
    return None
