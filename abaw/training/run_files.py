"""Files of a run in its directory. Needs no heavy library until a checkpoint is read."""

from collections.abc import Sequence
from pathlib import Path

from abaw.errors import AbawError, UsageError
from abaw.files import check_writable


class Run:
    """The directory of a run, which need not exist yet, and paths of its files.

    Attributes:
        folder: The directory.
        config: Resolved configuration of the training.
        provenance: Versions, repository and data of the latest start of the training.
        metrics: Curves of the training.
        scores: Official scores of the best epoch.
        checkpoints: Folder of the checkpoints.
        best: Checkpoint with the highest official score.
        tracks: Folder of the tracks that `predict` writes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.yaml"
        self.provenance = folder / "provenance.json"
        self.metrics = folder / "metrics.csv"
        self.scores = folder / "scores.json"
        self.checkpoints = folder / "checkpoints"
        self.best = self.checkpoints / "best.ckpt"
        self.tracks = folder / "tracks"

    @classmethod
    def named(cls, folder: str | Path | None, configs: Sequence[object]) -> "Run":
        """The run at `folder`, or else at `runs/<name of the first configuration>`.

        Raises:
            UsageError: Neither is given.
        """
        if folder is None and not configs:
            raise UsageError("name a configuration with --config FILE, or a run's directory with --run DIR")
        return cls(Path(folder) if folder is not None else Path("runs") / Path(str(configs[0])).stem)

    def evaluation(self, subcommand: str) -> Path:
        """Path of the official scores that `validate` or `test` writes."""
        return self.folder / f"scores-{'val' if subcommand == 'validate' else 'test'}.json"

    def check_free(self) -> None:
        """Raises a UsageError if a new training would overwrite files of another one."""
        if self.metrics.exists() or any(self.checkpoints.glob("*.ckpt")):
            raise UsageError(
                f"{self.folder} already holds a run; continue it with --ckpt_path last,"
                " or name another directory with --run"
            )

    def check_trained(self) -> None:
        """Raises an AbawError if there is no best checkpoint."""
        if not self.best.is_file():
            raise AbawError(
                f"{self.best}: there is no such checkpoint; train first with `abaw fit`, name the run's"
                " directory with --run, or a checkpoint with --ckpt_path FILE"
            )

    def predicted(self) -> Path:
        """The folder of its tracks, or the directory itself if that holds tracks.

        Raises:
            AbawError: There are none.
        """
        from abaw.evaluation.tracks import list_tracks

        for folder in (self.tracks, self.folder):
            if list_tracks(folder):
                return folder
        if not self.folder.is_dir():
            raise AbawError(f"{self.folder}: no such folder; name the directory of a run, such as runs/demo")
        raise AbawError(f"{self.folder}: holds no tracks; write them with `abaw predict --run {self.folder}`")

    def start(self, asked: str | None) -> str | None:
        """The checkpoint that `fit` resumes; None for a new training.

        `last` without a checkpoint starts a new training, so that the script of a job can always pass it.

        Raises:
            UsageError: The directory holds another run.
            AbawError: The checkpoint is missing or damaged, or the directory is not writable.
        """
        check_writable(self.folder)
        if asked == "last" and not any(self.checkpoints.glob("*.ckpt")):
            from lightning.pytorch.utilities import rank_zero_info

            rank_zero_info(f"{self.folder}: holds no checkpoint; starting a new training")
            return None
        start = None if asked is None else self._find(asked)
        if start is None or start.resolve().parent != self.checkpoints.resolve():
            self.check_free()
        return None if start is None else str(start)

    def trained(self, asked: str | None) -> str:
        """The checkpoint that `validate`, `test` and `predict` load; the best one if `asked` is None.

        Raises:
            AbawError: It is missing or damaged.
        """
        return str(self._find(asked or "best"))

    def _find(self, asked: str) -> Path:
        from abaw.model.checkpoints import load_checkpoint, newest_checkpoint

        if asked == "last":
            return newest_checkpoint(self.checkpoints)
        path = self.best if asked == "best" else Path(asked)
        if asked == "best":
            self.check_trained()
        load_checkpoint(path)
        return path
