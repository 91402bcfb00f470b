"""What the libraries say that is no news to a user of this package."""

import logging
import warnings

WARNINGS = (
    ".*does not have many workers.*",  # `data.workers` is documented
    r"(?s)\s*(By default only one Jsonargparse|``instantiate_classes`` was deprecated)",  # Lightning's
    r".*isinstance\(treespec, LeafSpec\).*",  # between torch and Lightning
    ".*callbacks used to create the checkpoint need to be provided.*",  # evaluation needs none of them
    ".*WeightAveraging callback, but loading a checkpoint outside.*",  # the checkpoint has the averages
    ".*overridden `on_before_batch_transfer` in `LightningModule`.*",  # on purpose
    r".*recommended to use `self\.log\(.*sync_dist=True.*",  # scores are sums over all devices already
    ".*Checkpoint directory .* exists and is not empty.*",  # the run's directory was looked at before
)


def silence() -> None:
    """Drops those warnings, and Lightning's advertisements, for the rest of the process."""
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()
