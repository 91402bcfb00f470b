"""Subcommands for tracks and submissions: typed functions, as in `commands`."""

from pathlib import Path
from typing import Any, Literal

from abaw.errors import AbawError, UsageError

SHOWN = 50
"""Number of findings printed as text; JSON lists all of them."""


def score(
    tracks: Path,
    root: Path,
    *,
    split: Literal["train", "val", "test"] = "val",
    against: Path | None = None,
    calibration: Path | None = None,
    against_calibration: Path | None = None,
    per_video: bool = False,
    annotations: Path | None = None,
    label_set: Literal["challenge", "mtl"] = "challenge",
    draws: int = 1000,
    seed: int = 0,
    trust_code: bool = False,
    json: bool = False,
) -> None:
    """Compute the official scores of tracks, with 95 % bootstrap intervals over recordings.

    Args:
        tracks: Folder of tracks written by `abaw predict`.
        root: The data set.
        split: Split whose labels are used; every video annotated in it needs a track.
        against: Tracks to compare with, of another run or without calibration.
        calibration: Checkpoint or JSON file with a calibration for `tracks`; null: none.
        against_calibration: The same for the tracks of `against`.
        per_video: Also print the scores of every video.
        annotations: Folder with the annotations, instead of those found below the root.
        label_set: Labels of the single-task challenges, or of the multi-task one.
        draws: Number of bootstrap draws; 0: no intervals.
        seed: Seed of the bootstrap.
        trust_code: Import the code of custom tasks that the tracks name.
        json: Print everything as JSON.
    """
    from json import dumps

    from abaw.data.layout import DataSource
    from abaw.evaluation.calibration import read_calibration
    from abaw.evaluation.labelled_tracks import LabelledTracks
    from abaw.evaluation.scores import best_constant, compare, official, summarise
    from abaw.evaluation.scores import per_video as score_videos
    from abaw.evaluation.tables import baseline_table, comparison_table, score_table
    from abaw.evaluation.tracks import find_tracks, known_tasks, score_tracks

    tasks = known_tasks(next(iter(find_tracks(tracks).values())), trust_code=trust_code)
    labelled = LabelledTracks(
        DataSource(root, annotations=annotations, label_set=label_set, tasks=tasks), split
    )
    chosen, others = (
        None if path is None else read_calibration(path) for path in (calibration, against_calibration)
    )

    def sums_of(folder: Path, chosen: Any) -> Any:
        videos, tasks = labelled.videos_and_tasks(folder)
        read = labelled.read(folder, videos)
        changed = read if chosen is None else map(chosen.apply, read)
        return score_tracks(changed, labelled.labels_of, tasks)

    sums = sums_of(tracks, chosen)
    other = None if against is None else sums_of(against, others)
    result = summarise(sums, draws, seed)
    known = [] if chosen is None else sorted(set(chosen.chosen_on) & set(sums.videos))
    if chosen is not None:
        result["calibration"] = {"path": str(calibration), "chosen_on": known}
    if per_video:
        result["videos"] = score_videos(sums)
    if other is not None:
        result["against"] = compare(sums, other, draws, seed)
    if json:
        print(dumps(result, indent=2))
        return
    print(score_table(result, labels=True))
    if known:
        print(
            f"optimistic: the calibration was fitted on {len(known)} of these {len(sums.videos)} videos; "
            "`abaw calibrate` estimates the score on new ones"
        )
    for video, scores in result.get("videos", {}).items():
        parts = "  ".join(f"{task} {part['score']:.4f}" for task, part in scores.items() if task != "total")
        print(f"{video}: {parts}")
    columns = {
        f"{tracks}{' calibrated' * (chosen is not None)}": official(sums),
        "best constant": best_constant(sums),
    }
    if other is not None:
        columns[f"{against}{' calibrated' * (others is not None)}"] = official(other)
        differences = [part["difference"] for part in result["against"].values()]
        if any(differences):
            print(f"\nbetter than {against} by\n{comparison_table(result['against'])}")
        else:
            print(f"\nequal to {against}: every score is the same")
    print(f"\n{baseline_table(columns)}")


def report(
    runs: list[Path],
    *,
    root: Path | None = None,
    out: Path | None = None,
    figures: Path | None = None,
    split: Literal["train", "val", "test"] = "val",
    calibration: Path | None = None,
    annotations: Path | None = None,
    label_set: Literal["challenge", "mtl"] | None = None,
    draws: int = 1000,
    seed: int = 0,
    trust_code: bool = False,
) -> None:
    """Write a page about one or several runs: scores, errors, calibration, learning curves, timelines.

    The page is one file that needs no network. Further runs are compared with the first.

    Args:
        runs: Folders of runs for which `abaw predict` has written tracks, or folders of tracks.
        root: The data set; null: that of the first run's config.yaml, or the variable ABAW_ROOT.
        out: HTML file to write; null: report.html in the first folder.
        figures: Folder for every figure as PNG, SVG and PDF; null: none.
        split: Split whose labels are used; every video annotated in it needs a track.
        calibration: Checkpoint or JSON file with a calibration, shown beside the scores of the first run.
        annotations: Folder with the annotations, instead of those of the first run's config.yaml.
        label_set: Labels of the single-task challenges, or of the multi-task one; null: as trained.
        draws: Number of bootstrap draws; 0: no intervals.
        seed: Seed of the bootstrap.
        trust_code: Import the code of custom tasks that the tracks name.

    Raises:
        AbawError: A run has no tracks, they do not fit the labels, or a file cannot be written.
    """
    from abaw.data.layout import DataSource, named_root
    from abaw.evaluation.calibration import read_calibration
    from abaw.evaluation.labelled_tracks import LabelledTracks
    from abaw.evaluation.tracks import find_tracks, known_tasks
    from abaw.report.page import RunReport, write_figures, write_report
    from abaw.report.runs import read_run
    from abaw.training.run_directory import read_config
    from abaw.training.run_files import Run

    if twice := [str(folder) for k, folder in enumerate(runs) if folder in runs[:k]]:
        raise UsageError(f"report: {twice[0]} is named twice; name each run once")
    given = [Run(folder) for folder in runs]
    folders = [run.predicted() for run in given]
    config = given[0].config
    trained = (read_config(config).get("data") if config.is_file() else None) or {}
    tasks = known_tasks(next(iter(find_tracks(folders[0]).values())), trust_code=trust_code)
    source = trained.get("source") or {}
    labelled = LabelledTracks(
        DataSource(
            named_root(root or trained.get("root"), "--root DIR"),
            annotations=annotations or source.get("annotations"),
            label_set=label_set or source.get("label_set", "challenge"),
            tasks=tasks,
        ),
        split,
    )
    names = [run.folder.resolve().name for run in given]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in runs]
    chosen = None if calibration is None else read_calibration(calibration)
    reports: list[RunReport] = []
    for name, run, folder in zip(names, given, folders, strict=True):
        first = reports[0] if reports else None
        reports.append(
            read_run(
                name,
                folder,
                labelled,
                metrics=run.metrics,
                calibration=chosen if first is None else None,
                against=first,
                draws=draws,
                seed=seed,
            )
        )
    target = runs[0] / "report.html" if out is None else out
    write_report(reports, target, title=f"abaw: {', '.join(names)}")
    print(f"{target}: report of {', '.join(names)}")
    if figures is not None:
        print(f"{figures}: {len(write_figures(reports, figures))} files of figures")


def calibrate(
    tracks: Path,
    root: Path,
    *,
    ckpt: Path | None = None,
    out: Path | None = None,
    split: Literal["train", "val", "test"] = "val",
    folds: int = 5,
    annotations: Path | None = None,
    label_set: Literal["challenge", "mtl"] = "challenge",
    seed: int = 0,
    json: bool = False,
) -> None:
    """Fit smoothing, AU thresholds, EXPR prior and temperature on held-out folds of recordings.

    Args:
        tracks: Folder of tracks written by `abaw predict`.
        root: The data set.
        ckpt: Checkpoint in which the calibration is stored.
        out: JSON file in which it is stored.
        split: Split whose labels are used; every video annotated in it needs a track.
        folds: Number of folds; all videos of a recording are in one.
        annotations: Folder with the annotations, instead of those found below the root.
        label_set: Labels of the single-task challenges, or of the multi-task one.
        seed: Seed of the bootstrap that decides which corrections are kept.
        json: Print everything as JSON.

    Raises:
        UsageError: The result is stored nowhere, or the number of folds is too small.
        AbawError: The tracks do not fit the labels or the checkpoint, or a file cannot be written.
    """
    from json import dumps

    from abaw.data.layout import DataSource
    from abaw.evaluation.calibration import store_calibration
    from abaw.evaluation.cross_fitting import calibrate as choose
    from abaw.evaluation.labelled_tracks import LabelledTracks
    from abaw.evaluation.track_metadata import common_metadata
    from abaw.evaluation.tracks import find_tracks, known_tasks
    from abaw.model.checkpoints import load_checkpoint, network_weights, weights_fingerprint

    stored = [path for path in (ckpt, out) if path is not None]
    if out is not None and out.suffix != ".json":
        raise UsageError(f"calibrate: --out {out} is a JSON file; give it the suffix .json")
    if ckpt is not None:  # checked before the search, which takes minutes
        used = weights_fingerprint(network_weights(load_checkpoint(ckpt)))
        made_by = common_metadata(tracks, find_tracks(tracks))
        if made_by is not None and made_by.weights != used:
            raise AbawError(
                f"{tracks}: the tracks are of {made_by}, not of {ckpt} (weights {used[:12]}); name the"
                " checkpoint that made them, predict again with this one into an empty folder, or store the"
                " calibration in a JSON file with --out"
            )
    tasks = known_tasks(next(iter(find_tracks(tracks).values())))
    labelled = LabelledTracks(
        DataSource(root, annotations=annotations, label_set=label_set, tasks=tasks), split
    )
    videos, _ = labelled.videos_and_tasks(tracks)
    result = choose(list(labelled.read(tracks, videos)), labelled.labels_of, folds, seed)
    for path in stored:
        store_calibration(result.calibration, path)
    if json:
        print(dumps(result.to_dict(), indent=2))
        return
    for task, report in result.reports.items():
        ends = report.gain_interval
        gain = f"{report.cross_fitted - report.raw:+.4f}"
        gain += "" if ends is None else f", 95 % [{ends[0]:+.4f}, {ends[1]:+.4f}]"
        print(
            f"{task.name:<5} raw {report.raw:.4f}   on new videos {report.cross_fitted:.4f} ({gain})   "
            f"on the videos it was chosen on {report.optimistic:.4f} (optimistic)"
        )
        print(*(f"      {note}" for note in report.notes), sep="\n")
    print("the gain of a task accounts for the choice among corrections; those of single corrections do not")
    print(f"stored in {' and '.join(map(str, stored))}" if stored else "not stored: give --ckpt or --out")


def ensemble(tracks: list[Path], out: Path, *, weights: list[float] | None = None) -> None:
    """Average the tracks of several checkpoints, window lengths or folds.

    Args:
        tracks: Two or more folders of tracks of the same videos.
        out: Folder of the mean tracks.
        weights: One weight per folder; null: equal weights.
    """
    from abaw.evaluation.tracks import ensemble_tracks

    written = ensemble_tracks(tracks, out, weights)
    print(f"{out}: {len(written)} tracks, each the mean of {len(tracks)}")


def submit(
    tracks: Path,
    out: Path,
    *,
    sample: Path,
    task: Literal["va", "expr", "au", "mtl"],
    calibration: Path | None = None,
    allow_missing: bool = False,
    json: bool = False,
) -> None:
    """Write the verified submission of one task, or of all three (mtl).

    Args:
        tracks: Folder of tracks written by `abaw predict`.
        out: File to write; for a list of videos (3rd edition), folder of a file per video.
        sample: The organisers' sample file, or their list of videos.
        task: The submitted task.
        calibration: Checkpoint or JSON file with a calibration; null: none.
        allow_missing: Also submit videos whose track ends long before their rows.
        json: Print the number of rows per video and origin as JSON.
    """
    from json import dumps

    from abaw.evaluation.calibration import read_calibration
    from abaw.evaluation.submission.write import write_submission

    change = (lambda track: track) if calibration is None else read_calibration(calibration).apply
    done = write_submission(tracks, sample, task, out, change, allow_missing)
    if json:
        print(dumps(done.to_dict(), indent=2))
        return
    rows = done.total
    print(done.table(SHOWN))
    if done.cut_short:
        print(f"allowed by --allow_missing, beyond the last crop: {done.named_cut_short()}")
    print(
        f"{out}: {rows.rows:,} rows, verified: {rows.seen:,} seen, {rows.from_context:,} from the frames "
        f"around them, {rows.beyond_the_last_crop:,} beyond the last crop"
    )


def verify(
    file: Path, *, sample: Path, task: Literal["va", "expr", "au", "mtl"] | None = None, json: bool = False
) -> int:
    """Check a submission against the organisers' sample; exits with 1 if there are findings.

    Args:
        file: The submission; for a list of videos (3rd edition), the folder of its files.
        sample: The organisers' sample file, or their list of videos.
        task: The submitted task; null: inferred from the file.
        json: Print all findings as JSON.
    """
    from dataclasses import asdict
    from json import dumps

    from abaw.evaluation.submission.verify import grouped, verify_submission

    findings = verify_submission(file, sample, task)
    if json:
        print(dumps([asdict(finding) for finding in findings], indent=2))
    else:
        lines = grouped(findings)
        print(*lines[:SHOWN], sep="\n", end="\n" if lines else "")
        if len(lines) > SHOWN:
            print(f"... and {len(lines) - SHOWN:,} kinds more; --json lists all")
        count = f"{len(findings):,} finding{'s' * (len(findings) > 1)}"
        print(f"{file}: {count if findings else 'valid'}")
    return 1 if findings else 0
