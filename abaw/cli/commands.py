"""Subcommands without a trainer: typed functions, with options and help from signature and docstring."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from abaw.cli.analyze import analyze
from abaw.cli.track_commands import calibrate, ensemble, report, score, submit, verify
from abaw.errors import UsageError


def synth(
    out: Path,
    *,
    videos: int = 32,
    frames: int = 300,
    seed: int = 0,
    jobs: int | None = None,
    preset: Literal["demo", "real"] = "demo",
) -> None:
    """Write generated videos and labels in the official layout.

    Args:
        out: Folder to create; it must be empty.
        videos: Number of videos in training, validation and test together.
        frames: Mean number of frames of a video.
        seed: Random seed; the same seed generates the same bytes.
        jobs: Number of processes; null: one per core.
        preset: `demo` is easy to learn, `real` as imbalanced as Aff-Wild2.
    """
    from abaw.data.synth.writer import write_dataset

    done = write_dataset(
        out, videos=videos, frames=frames, seed=seed, jobs=jobs, preset=preset, progress=True
    )
    print(f"{done.root}: {done.videos} videos, {done.frames:,} frames, {done.images:,} with a face")


def check(
    root: Path | None = None,
    *,
    image_roots: list[Path] | None = None,
    annotations: Path | None = None,
    sample: Path | None = None,
    size: int = 112,
    ignore: list[str] | None = None,
    jobs: int | None = None,
    json: bool = False,
) -> int:
    """Check every image and every label of a data set; exits with 1 if there are defects.

    Args:
        root: Folder below which images and annotations are searched; null: environment variable ABAW_ROOT.
        image_roots: Folders with one folder of images per video, instead of those found below the root.
        annotations: Folder with the annotations, instead of those found below the root.
        sample: Sample submission, or list of videos, whose images must exist.
        size: Expected height and width of the images, in pixels.
        ignore: Kinds of findings that do not count as defects.
        jobs: Number of processes that read images; null: one per core.
        json: Print everything as JSON.
    """
    from abaw.data.check.check import check_dataset
    from abaw.data.layout import DataSource, named_root
    from abaw.evaluation.submission.formats import read_sample

    report = check_dataset(
        DataSource(named_root(root, "ROOT"), image_roots, annotations),
        size=size,
        ignore=ignore or (),
        jobs=jobs,
        progress=True,
        asked=None if sample is None else read_sample(sample).numbers(),
    )
    print(report.to_json() if json else report.table())
    return 0 if report.ok else 1


def folds(
    root: Path,
    out: Path,
    *,
    k: int = 5,
    seed: int = 0,
    annotations: Path | None = None,
    label_set: Literal["challenge", "mtl"] = "challenge",
) -> None:
    """Divide the annotated videos into folds of whole recordings, similar in labels and length.

    `abaw fit --data.folds OUT --data.fold 0` then validates on the first fold.

    Args:
        root: The data set.
        out: JSON file to write.
        k: Number of folds.
        seed: Seed of the assignment to folds.
        annotations: Folder with the annotations, instead of those found below the root.
        label_set: Labels of the single-task challenges, or of the multi-task one.

    Raises:
        AbawError: There are no annotated videos, fewer recordings than folds, or the file cannot be written.
    """
    from abaw.data.index import build_index
    from abaw.data.layout import DataSource
    from abaw.loading.splits import make_folds, read_folds, write_folds

    index = build_index(DataSource(root, annotations=annotations, label_set=label_set), progress=True)
    fold_of = make_folds(index, k, seed)
    if out.exists() and read_folds(out) != fold_of:
        raise UsageError(
            f"{out}: holds other folds, with which a run may have been trained; name another file, or remove"
            " it"
        )
    write_folds(out, fold_of)
    sizes = [sum(fold == number for fold in fold_of.values()) for number in range(k)]
    print(f"{out}: {len(fold_of)} videos in folds of {', '.join(map(str, sizes))}")
    print(f"use it with: abaw fit --config FILE --data.folds {out} --data.fold 0")


def pack(
    root: Path,
    out: Path,
    *,
    format: Literal["flat", "litdata"] = "flat",
    image_roots: list[Path] | None = None,
    segment: int = 128,
    jobs: int = 8,
    json: bool = False,
) -> None:
    """Pack images into few large files for streaming; only new and changed videos are packed.

    Videos that the data set no longer has are removed from the pack.

    Args:
        root: The data set.
        out: Folder of the pack, which can be used as an image root.
        format: `flat` for local and network disks, `litdata` for object storage.
        image_roots: Folders with one folder of images per video, instead of those found below the root.
        segment: Number of frames per litdata segment; a window must fit into one.
        jobs: Number of videos read in parallel.
        json: Print the result as JSON.
    """
    from abaw.data.layout import DataSource
    from abaw.data.packing import pack as write_pack

    done = write_pack(
        DataSource(root, image_roots),
        out,
        format=format,
        segment=segment,
        jobs=jobs,
        progress=True,
    )
    print(done.to_json() if json else done.line())
    if not json:
        print(f"use it with: abaw fit --config FILE --data.root {root} --data.source.image_roots '[{out}]'")


def export(
    ckpt: Path,
    out: Path,
    *,
    name: str | None = None,
    data: str | None = None,
    license: str | None = None,
    onnx: bool = False,
    trust_code: bool = False,
) -> None:
    """Write a trained model to hand on: a folder with weights, configuration and model card.

    The folder holds no executable code, and is a repository of the Hugging Face hub as it stands.
    `abaw.load` and `abaw analyze` take it, or its name on the hub.

    Args:
        ckpt: Checkpoint of `abaw fit`, or the folder of a run, which stands for its best one.
        out: Folder to create; a name that ends with .ckpt: a checkpoint without optimizer and averages.
        name: Name of the model in its card, such as owner/name; null: that of the folder.
        data: Name and edition of the data set, for the card.
        license: Licence of the weights, for the card, such as cc-by-nc-4.0.
        onnx: Also write model.onnx, compared with PyTorch; needs onnx, onnxscript and onnxruntime.
        trust_code: Import the code of a custom task that the checkpoint names.

    Raises:
        UsageError: The folder or file exists.
        AbawError: The checkpoint is missing or damaged, or the model cannot be written.
    """
    import json

    from abaw.inference.predictor import open_model, rebuilt_network
    from abaw.model.backbone import weights_license
    from abaw.model.checkpoints import save_checkpoint
    from abaw.model.model_folder import ONNX, public_values, slim, write_model_folder
    from abaw.report.model_card import model_card
    from abaw.training.run_files import Run

    path, loaded = open_model(ckpt)
    network = rebuilt_network(path, loaded, trust_code=trust_code)  # so the checkpoint is whole
    if out.suffix == ".ckpt":
        if onnx:
            raise UsageError(f"{out}: a checkpoint holds no ONNX; name a folder, or leave out --onnx")
        if out.exists():
            raise UsageError(f"{out}: already exists; name another file, or remove it")
        save_checkpoint(slim(loaded), out)
    else:
        recorded = Run(path.parent.parent).provenance
        card = model_card(
            loaded["abaw"],
            network.tasks,
            name=name or out.name,
            n_weights=sum(tensor.numel() for tensor in network.parameters()),
            provenance=json.loads(recorded.read_text(encoding="utf-8")) if recorded.is_file() else None,
            data=data,
            license=license,
            backbone_license=None if network.backbone is None else weights_license(network.backbone.settings),
        )

        def add_onnx(folder: Path) -> None:
            from abaw.inference.onnx_export import export_onnx

            window = loaded["abaw"]["windows"]["window"]
            path = folder / ONNX
            worst = export_onnx(network, path, public_values(loaded), lengths=(1, 7, window))
            print(f"{ONNX}: predictions differ by at most {worst:.1g} from those of PyTorch")

        write_model_folder(loaded, out, card, add_onnx if onnx else None)
        if license is None or data is None:
            print(
                f"{out / 'README.md'}: names no data set or no licence; give --data and --license, or edit it"
            )
    size = sum(file.stat().st_size for file in (out.iterdir() if out.is_dir() else [out]))
    print(f"{out}: {size / 1e6:.1f} MB, from {path}")


SUBCOMMANDS: dict[str, Callable[..., int | None]] = {
    "synth": synth,
    "check": check,
    "folds": folds,
    "pack": pack,
    "score": score,
    "calibrate": calibrate,
    "ensemble": ensemble,
    "submit": submit,
    "verify": verify,
    "report": report,
    "export": export,
    "analyze": analyze,
}
"""Subcommands by name; `help.CONFIGURED` has those that a configuration describes."""
