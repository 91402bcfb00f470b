"""The feature store: what was written comes back for any frames, and what does not fit is refused by name."""

import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import save_file

from abaw.data.features import FeatureStore, images_fingerprint
from abaw.data.formats.features import (
    features_path,
    fingerprint_of,
    open_features,
    write_features,
    write_metadata,
)
from abaw.data.frames import RawFolder
from abaw.data.index import Index, build_index
from abaw.data.layout import DataSource
from abaw.errors import AbawError

PARTS = {
    "format": 1,
    "backbone": {"name": "vit_tiny", "overrides": {"depth": 2}},
    "weights": "a" * 64,
    "transform": {"image_size": 112, "mean": [0.5, 0.5, 0.5], "interpolation": "bicubic"},
    "source": {"frame_size": [112, 112]},
    "precision": "32-true",
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Three videos of 5, 9 and 7 frames; frames 2 and 3 (from 1) of `beta` have no crop."""
    root = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    for name, n_frames in (("alpha", 5), ("beta", 9), ("gamma", 7)):
        folder = root / "cropped_aligned" / name
        folder.mkdir(parents=True)
        for number in range(1, n_frames + 1):
            if name != "beta" or number not in (2, 3):
                cv2.imwrite(str(folder / f"{number:05d}.jpg"), rng.integers(0, 255, (112, 112, 3), np.uint8))
    return build_index(DataSource(root))


def fill(folder: Path, index: Index, dim: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """Writes a cache as `abaw extract` does; gives what is in it."""
    rng = np.random.default_rng(seed)
    write_metadata(folder, PARTS)
    written = {}
    for video, name in enumerate(index.videos):
        visible = index.visible(video)
        features = rng.normal(size=(len(visible), dim)).astype(np.float16) * visible[:, None]
        about = {
            "key": fingerprint_of(PARTS),
            "video": name,
            "images": images_fingerprint(index, RawFolder(index), video),
        }
        write_features(features_path(folder, name), features=features, visible=visible, metadata=about)
        written[name] = features
    return written


def fill_elsewhere(folder: Path, index: Index, dim: int = 3, cut: int = 0) -> dict[str, np.ndarray]:
    """Writes features as any program could, float32, the last `cut` frames of each video missing."""
    folder.mkdir()
    written = {}
    for video, name in enumerate(index.videos):
        n_frames = int(index.n_frames[video]) - cut
        features = np.arange(n_frames * dim, dtype=np.float32).reshape(n_frames, dim)
        save_file(
            {"features": features, "visible": np.ones(n_frames, np.uint8)}, folder / f"{name}.safetensors"
        )
        written[name] = features
    return written


@pytest.mark.parametrize("indices", [range(9), [8, 0, 3], range(0, 9, 3), [], np.array([4])])
def test_reads_what_was_written(tmp_path: Path, index: Index, indices: object) -> None:
    written = fill(tmp_path, index)
    read = FeatureStore([tmp_path], index).read(1, indices)  # type: ignore[arg-type]
    chosen = np.asarray(indices, int)
    np.testing.assert_array_equal(read.values, written["beta"][chosen])
    np.testing.assert_array_equal(read.visible, index.visible(1)[chosen])
    assert read.values.dtype == np.float16


def test_reading_leaves_the_cache_alone(tmp_path: Path, index: Index) -> None:
    fill(tmp_path, index)
    store = FeatureStore([tmp_path], index)
    store.read(0, range(5)).values[:] = 7
    assert not (store.read(0, range(5)).values == 7).any()


def test_the_same_features_give_the_same_bytes(tmp_path: Path, index: Index) -> None:
    fill(tmp_path / "a", index)
    fill(tmp_path / "b", index)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_caches_are_joined_by_frame(tmp_path: Path, index: Index) -> None:
    first = fill(tmp_path / "a", index)["beta"]
    second = fill_elsewhere(tmp_path / "b", index, cut=2)["beta"]
    store = FeatureStore([tmp_path / "a", tmp_path / "b"], index)
    read = store.read(1, [8, 5, 1, 0])
    assert store.dim == read.values.shape[1] == 7
    np.testing.assert_array_equal(read.visible, [False, True, False, True])  # behind the end, -, no crop, -
    for row, frame in ((1, 5), (3, 0)):
        np.testing.assert_array_equal(read.values[row], np.concatenate([first[frame], second[frame]]))
    assert not read.values[[0, 2]].any()


def test_invisible_frames_hold_zeros_whatever_the_file_has(tmp_path: Path, index: Index) -> None:
    for name, n_frames in zip(index.videos, index.n_frames.tolist(), strict=True):
        visible = np.arange(n_frames) % 2 == 0
        features = np.where(visible[:, None], 1.0, np.nan).astype(np.float32)
        save_file({"features": features, "visible": visible}, tmp_path / f"{name}.safetensors")
    read = FeatureStore([tmp_path], index).read(0, range(5))
    np.testing.assert_array_equal(read.values[:, 0], [1, 0, 1, 0, 1])


def test_travels_to_workers_without_its_files(tmp_path: Path, index: Index) -> None:
    fill(tmp_path, index)
    store = FeatureStore([tmp_path], index)
    expected = store.read(2, range(7)).values
    data = pickle.dumps(store)
    assert len(data) < 5000
    np.testing.assert_array_equal(pickle.loads(data).read(2, range(7)).values, expected)


def test_few_videos_stay_mapped(tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abaw.data.features._MOST_OPEN", 1)
    written = fill(tmp_path, index)
    store = FeatureStore([tmp_path], index)

    def mapped() -> set[str]:
        maps = Path("/proc/self/maps").read_text().splitlines()
        return {Path(line.split()[-1]).stem for line in maps if str(tmp_path) in line}

    for video in (1, 0, 1, 2):
        name = index.videos[video]
        np.testing.assert_array_equal(store.read(video, range(5)).values, written[name][:5])
        assert mapped() == {name}


def test_check_passes_what_fits_and_names_short_caches(
    tmp_path: Path, index: Index, recwarn: pytest.WarningsRecorder
) -> None:
    fill(tmp_path / "a", index)
    FeatureStore([tmp_path / "a"], index).check(range(3), RawFolder(index))
    assert not recwarn
    fill_elsewhere(tmp_path / "b", index, cut=2)
    with pytest.warns(UserWarning, match=r"3 videos have fewer frames there .* alpha \(3 of 5\)"):
        FeatureStore([tmp_path / "a", tmp_path / "b"], index).check(range(3))


def _no_folder(folder: Path, index: Index) -> None:
    shutil.rmtree(folder)


def _empty_folder(folder: Path, index: Index) -> None:
    for path in folder.glob("*.safetensors"):
        path.unlink()


def _no_video(folder: Path, index: Index) -> None:
    (folder / "gamma.safetensors").unlink()


def _half_a_file(folder: Path, index: Index) -> None:
    path = folder / "gamma.safetensors"
    path.write_bytes(path.read_bytes()[:-20])


def _other_tensors(folder: Path, index: Index) -> None:
    save_file({"features": np.zeros((7, 4), np.float16)}, folder / "gamma.safetensors")


def _whole_numbers(folder: Path, index: Index) -> None:
    tensors = {"features": np.zeros((7, 4), np.int32), "visible": np.ones(7, np.uint8)}
    save_file(tensors, folder / "gamma.safetensors")


def _other_key(folder: Path, index: Index) -> None:
    tensors = {"features": np.zeros((7, 4), np.float16), "visible": np.ones(7, bool)}
    write_features(folder / "gamma.safetensors", **tensors, metadata={"key": "other"})


def _other_dim(folder: Path, index: Index) -> None:
    tensors = {"features": np.zeros((7, 5), np.float16), "visible": np.ones(7, bool)}
    write_features(folder / "gamma.safetensors", **tensors, metadata={"key": fingerprint_of(PARTS)})


def _other_images(folder: Path, index: Index) -> None:
    features = open_features(folder / "gamma.safetensors")
    write_features(
        folder / "gamma.safetensors",
        features=features.features,
        visible=features.visible,
        metadata={"key": fingerprint_of(PARTS), "images": "0"},
    )


def _damaged_note(folder: Path, index: Index) -> None:
    (folder / "store.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_no_folder, "does not exist; make them with `abaw extract"),
        (_empty_folder, "holds no features; make them with `abaw extract"),
        (_no_video, r"gamma.safetensors: the features of this video are missing; `abaw extract`"),
        (_half_a_file, r"gamma.safetensors: not a file of features"),
        (_other_tensors, r"gamma.safetensors: not a file of features .*visible"),
        (_whole_numbers, r"gamma.safetensors: features \(7, 4\) in int32"),
        (_other_key, r"gamma.safetensors: not made with what store.json beside it describes; delete"),
        (_other_dim, r"gamma.safetensors: 5 values per frame in float16, other files .* have 4"),
        (_other_images, r"gamma.safetensors: stale features, the images of gamma have changed"),
        (_damaged_note, r"store.json: damaged"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    tmp_path: Path, index: Index, spoil: object, message: str
) -> None:
    fill(tmp_path, index)
    spoil(tmp_path, index)  # type: ignore[operator]
    with pytest.raises(AbawError, match=message):
        FeatureStore([tmp_path], index).check(range(3), RawFolder(index))


def test_images_are_told_apart_by_gaps_and_pixels(tmp_path: Path, index: Index) -> None:
    def mark_after(change: str) -> str:
        root = tmp_path / change
        shutil.copytree(index.roots[0], root / "cropped_aligned")
        folder = root / "cropped_aligned" / "beta"
        if change == "gap":
            (folder / "00007.jpg").unlink()
        elif change == "pixels":
            cv2.imwrite(str(folder / "00001.jpg"), np.zeros((112, 112, 3), np.uint8))
        other = build_index(DataSource(root))
        return images_fingerprint(other, RawFolder(other), 1)

    mark = images_fingerprint(index, RawFolder(index), 1)
    assert mark_after("copy") == mark
    assert len({mark, mark_after("gap"), mark_after("pixels")}) == 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"backbone": {"name": "vit_small", "overrides": {"depth": 2}}},
            "backbone.name vit_tiny, now vit_small",
        ),
        ({"backbone": {"name": "vit_tiny", "overrides": {}}}, "backbone.overrides.depth 2, now None"),
        ({"weights": "b" * 64}, "weights aaaaaaaaaaaa…, now bbbbbbbbbbbb…"),
        ({"transform": PARTS["transform"] | {"image_size": 224}}, "transform.image_size 112, now 224"),
        ({"source": {"frame_size": [96, 96]}}, r"source.frame_size \[112, 112\], now \[96, 96\]"),
        ({"format": 2}, "format 1, now 2"),
    ],
)
def test_a_stale_cache_is_refused_with_the_part_that_differs(
    tmp_path: Path, index: Index, changed: dict, message: str
) -> None:
    folder, elsewhere = tmp_path / "a", tmp_path / "b"
    fill(folder, index)
    fill_elsewhere(elsewhere, index)
    with pytest.raises(AbawError, match=rf"{folder}: stale .*{message}.*`abaw extract --config FILE"):
        FeatureStore([folder], index).check_metadata(PARTS | changed)
    FeatureStore([folder], index).check_metadata({k: v for k, v in PARTS.items() if k not in changed})
    FeatureStore([elsewhere, folder], index).check_metadata(PARTS | changed)  # made elsewhere: not compared
