"""The subcommand `analyze`: from any video to tables, an overlay video and a page."""

import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from abaw.errors import AbawError


def analyze(
    inputs: list[str],
    *,
    ckpt: Path,
    out: Path = Path("analysis"),
    detector: Path | None = None,
    device: str | None = None,
    precision: Literal["auto", "bf16-mixed", "32-true"] = "auto",
    calibrated: bool = False,
    every: int = 1,
    detect_every: int = 1,
    max_gap: float = 5.0,
    smoothing: float = 1.0,
    max_side: int = 640,
    crops: Literal["auto", "yes", "no"] = "auto",
    fps: float | None = None,
    format: Literal["pyfeat", "openface"] = "pyfeat",
    table: Literal["csv", "parquet"] = "csv",
    no_overlay: bool = False,
    no_page: bool = False,
    trust_code: bool = False,
    json: bool = False,
) -> int:
    """Predict every face in every frame of videos, images and folders of images.

    Writes a table, a summary, a video with the predictions drawn into it and a page with curves. A finished
    input is left alone; an unfinished one continues where it was.

    Args:
        inputs: Videos, images, folders of images, patterns; folders of aligned crops are recognised.
        ckpt: Checkpoint of `abaw fit`.
        out: Folder of the results.
        detector: Face detector, face_detection_yunet_2023mar.onnx; null: from the hub or its cache.
        device: Device of the network, such as cpu or cuda:1; null: a GPU if there is one.
        precision: Precision of the network; `auto`: the fastest on this machine, as in `predict`.
        calibrated: Apply the calibration that `abaw calibrate` stored in the checkpoint.
        every: Analyse every N-th frame.
        detect_every: Detect faces in every N-th analysed frame; between, they move at constant velocity.
        max_gap: Seconds after which a face that re-appears is a new identity.
        smoothing: Cutoff frequency in Hz of the smoothing of crops, smaller is smoother; 0: none.
        max_side: Longer side in pixels of the frames in which faces are detected.
        crops: Whether images are aligned crops; auto: in folders named and sized as in cropped_aligned.
        fps: Frames per second of folders of images; null: unknown.
        format: Names of the columns: those of py-feat, or of OpenFace.
        table: Kind of the tables.
        no_overlay: Write no video.
        no_page: Write no page.
        trust_code: Import the code of a custom task that the checkpoint names.
        json: Print the summaries as JSON.
    """
    from abaw.cli.precision import BF16, best_precision
    from abaw.cli.threads import threads_of
    from abaw.inference.analysis import AnalysisSettings
    from abaw.inference.faces import TEMPLATE_SIZE, find_detector
    from abaw.inference.inputs import find_inputs
    from abaw.inference.predictor import load
    from abaw.inference.results import AnalysisJob
    from abaw.inference.video import import_av

    settings = AnalysisSettings(
        every=every, detect_every=detect_every, max_gap=max_gap, smoothing=smoothing, max_side=max_side
    )
    import_av()
    paths = find_inputs(inputs)
    if detector is not None:
        find_detector(detector)
    predictor = load(ckpt, device=device, calibrated=calibrated, trust_code=trust_code)
    if precision == "auto":
        choice = best_precision(predictor.device.type)
        choice.announce()
        precision = choice.precision  # type: ignore[assignment]
    predictor.bf16 = precision == BF16
    settings = replace(settings, crop_size=predictor.frame_size or TEMPLATE_SIZE)
    job = AnalysisJob(predictor=predictor, detector=detector, settings=settings, format=format)
    run = _Run(out, job, crops, fps, table, not no_overlay, not no_page)
    n_weights = sum(weight.numel() for weight in predictor.network.parameters())
    with threads_of(n_weights) if predictor.device.type == "cpu" else nullcontext():
        return _analyze_all(run, paths, json)


def _analyze_all(run: "_Run", paths: list[Path], json: bool) -> int:
    """Analyses all inputs, prints what was found in each, and returns the exit code."""
    from json import dumps

    from abaw.inference.faces import NoDetectorError

    summaries, n_failed = [], 0
    for path in paths:
        try:
            summary, finished = run.analyze(path)
        except NoDetectorError:  # every other video would fail as well
            raise
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command continues the analysis") from None
        except AbawError as error:
            n_failed += 1
            print(f"abaw: {error}", file=sys.stderr)
            continue
        summaries.append(summary)
        if not json:
            print(_line(summary, finished))
        if summary["problem"]:
            n_failed += 1
            print(f"abaw: {summary['input']}: {summary['problem']}", file=sys.stderr)
    if json:
        print(dumps(summaries, indent=2))
    return 1 if n_failed else 0


@dataclass(frozen=True)
class _Run:
    """The settings of one call, for all inputs."""

    out: Path
    job: Any  # of inference.results, which is imported late
    crops: Any
    fps: float | None
    table: Any
    overlay: bool
    page: bool

    def analyze(self, path: Path) -> tuple[dict[str, Any], bool]:
        """Writes the results of one input; returns its summary, and whether it was finished before.

        Raises:
            AbawError: It cannot be read, or a file cannot be written.
        """
        from abaw.data.progress import Progress
        from abaw.inference.inputs import open_reader
        from abaw.inference.results import ResultFiles

        reader = open_reader(path, crops=self.crops, fps=self.fps)
        files = ResultFiles(self.out, reader.name, self.table)
        every = self.job.settings.every
        n_frames = None if reader.n_frames is None else -(-reader.n_frames // every)
        finished = files.table.exists() and files.summary.exists()
        with Progress(total=n_frames, desc=reader.name, unit="frame", show=not finished) as bar:
            summary: dict[str, Any] = self.job.run(reader, files, bar.update)
        video = files.overlay_of(reader)
        if self.overlay and not video.exists():
            from abaw.report.overlay import write_overlay

            with Progress(total=n_frames, desc=video.name, unit="frame") as bar:
                write_overlay(reader, files.table, video, every=every, progress=bar.update)
        if self.page and not files.page.exists() and video.suffix == ".mp4":
            from abaw.report.timeline import write_page

            write_page(files.table, video if video.exists() else None, files.page, title=reader.name)
        return summary, finished


def _line(summary: dict[str, Any], finished: bool) -> str:
    """What was found in one input, and how fast, if it was analysed now."""
    faces, speed = summary["faces"], summary["speed"]
    n = summary["frames"]
    text = f"{summary['input']}: {n:,} frame{'s' * (n != 1)}"
    if faces:
        share = summary["share_from_context"]
        text += f", {len(faces)} face{'s' * (len(faces) > 1)}, {share:.1%} of the rows from context"
    else:
        text += ", no face found"
    if finished:
        text += " (analysed before)"
    elif speed["frames"]:
        per_frame = [
            f"{stage} {1000 * seconds / speed['frames']:.1f}"
            for stage, seconds in speed["stage_seconds"].items()
        ]
        text += (
            f"\n    {speed['frames'] / speed['seconds']:.1f} frames/s; ms per frame, in parallel:"
            f" {', '.join(per_frame)} ({speed['detection_threads']} detection threads)"
        )
    return text
