"""Results of an analysis on disk: a table and a summary per input, complete or continued after a stop."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from abaw.data.cache import fingerprint
from abaw.errors import AbawError
from abaw.files import atomic_path
from abaw.inference.analysis import Analysis, AnalysisSettings
from abaw.inference.face_tables import AnalysisSummary, Format, TableKind, face_table, table_writer
from abaw.inference.faces import find_detector
from abaw.inference.inputs import ImageFile, Reader
from abaw.inference.observations import CHUNK, Journal
from abaw.inference.predictor import Predictor
from abaw.model.checkpoints import weights_fingerprint


@dataclass(frozen=True)
class ResultFiles:
    """The files of one input.

    Attributes:
        folder: Folder of the results.
        name: Name of the input.
        kind: Kind of the table.
    """

    folder: Path
    name: str
    kind: TableKind = "csv"

    @property
    def table(self) -> Path:
        """The table."""
        return self.folder / f"{self.name}.{self.kind}"

    @property
    def summary(self) -> Path:
        """The summary, which is written last: it marks a complete table."""
        return self.folder / f"{self.name}.json"

    def overlay_of(self, reader: Reader) -> Path:
        """The video, or image, with the predictions drawn into it."""
        suffix = ".jpg" if isinstance(reader, ImageFile) else ".mp4"
        return self.folder / f"{self.name}.overlay{suffix}"

    @property
    def page(self) -> Path:
        """The page with the video beside curves of the predictions."""
        return self.folder / f"{self.name}.html"

    @property
    def journal(self) -> Path:
        """Folder of unfinished work."""
        return self.folder / f".{self.name}.unfinished"

    def read_summary(self) -> dict[str, Any] | None:
        """The summary; None if there is none.

        Raises:
            AbawError: It is damaged.
        """
        try:
            summary = json.loads(self.summary.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise AbawError(
                f"{self.summary}: cannot be read ({error}); remove it to analyse again"
            ) from error
        return dict(summary)

    def remove_temporary(self) -> None:
        """Deletes unfinished files of a killed process."""
        for name in (self.table.name, self.summary.name, f"{self.name}.overlay.*", self.page.name):
            for left in self.folder.glob(f".{name}.*.tmp"):
                left.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class AnalysisJob:
    """How inputs are analysed and written.

    Attributes:
        predictor: The network.
        detector: File of the face detector; None: that of the hub or its cache, if an input needs it.
        settings: Settings of the analysis.
        format: Names of the columns.
    """

    predictor: Predictor
    detector: Path | None
    settings: AnalysisSettings
    format: Format = "pyfeat"

    def run(
        self, reader: Reader, files: ResultFiles, progress: Callable[[int], None] | None = None
    ) -> dict[str, Any]:
        """Writes the table and the summary of one input, or returns the summary of a finished one.

        An analysis that was stopped continues where it was.

        Args:
            reader: The input.
            files: Files to write.
            progress: Called with a number of frames that are done.

        Returns:
            The summary.

        Raises:
            AbawError: The input cannot be read, a file cannot be written, or the files are those of other
                settings.
        """
        detector = None if reader.aligned else find_detector(self.detector)
        mark = self._fingerprint(reader, files, detector)
        done = files.read_summary()
        if done is not None and files.table.exists():
            if done.get("fingerprint") != mark:
                raise AbawError(
                    f"{files.summary}: is the result of {done.get('input')} and {done.get('checkpoint')} with"
                    " other settings, or of an earlier version of one of them; give another --out, or remove"
                    f" the files of {files.name}"
                )
            return done
        files.remove_temporary()
        journal = Journal(files.journal, mark)
        analysis = Analysis(
            reader,
            self.predictor,
            detector,
            self.settings,
            calibration=self.predictor.calibration,
            journal=journal,
            progress=progress,
        )
        summary = AnalysisSummary()
        clock = analysis.clock
        with clock.running(), table_writer(files.table) as writer:
            for rows in analysis:
                with clock.time("write"):
                    writer.write(face_table(rows, self.format))
                    summary.add(rows)
        plain = self._summary(reader, summary, analysis, mark)
        with atomic_path(files.summary) as temporary:
            temporary.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
        journal.remove()
        return plain

    def _summary(
        self, reader: Reader, summary: AnalysisSummary, analysis: Analysis, mark: str
    ) -> dict[str, Any]:
        clock = analysis.clock
        plain = {
            "input": str(reader.path),
            "problem": reader.problem,
            "aligned": reader.aligned,
            "fps": reader.fps,
            **summary.to_dict(),
            "checkpoint": self.predictor.checkpoint,
            "calibrated": self.predictor.calibration is not None,
            "tasks": [str(task) for task in self.predictor.tasks],
            "format": self.format,
            "settings": asdict(self.settings),
            "speed": {
                "device": str(self.predictor.device),
                "frames": clock.frames,
                "seconds": clock.total,
                "stage_seconds": dict(clock.seconds),
                "detection_threads": analysis.n_threads,
            },
            "version": version("abaw"),
            "fingerprint": mark,
        }
        return dict(json.loads(json.dumps(plain)))  # as it is read again

    @cached_property
    def _weights(self) -> str:
        """Fingerprint of the network, computed once for all inputs."""
        return weights_fingerprint(self.predictor.network.state_dict())

    def _fingerprint(self, reader: Reader, files: ResultFiles, detector: Path | None) -> str:
        """Of all that affects the table."""
        predictor = self.predictor
        parts = [
            fingerprint([reader.path.resolve()]),
            reader.aligned,
            reader.fps,
            self._weights,
            None if predictor.calibration is None else predictor.calibration.to_dict(),
            [predictor.window, predictor.stride, predictor.step, predictor.bf16],
            None if detector is None else hashlib.sha256(detector.read_bytes()).hexdigest(),
            asdict(self.settings),
            self.format,
            files.kind,
            [CHUNK, version("abaw")],
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
