"""What calibration says that it gains, and what it gains on videos that it has not seen."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, softmax

from abaw.__main__ import main
from abaw.data.index import build_index
from abaw.data.labels import Labels
from abaw.data.layout import DataSource
from abaw.data.synth.animation import animate
from abaw.data.synth.presets import PRESETS, plan_videos
from abaw.data.synth.writer import write_dataset
from abaw.errors import AbawError, UsageError
from abaw.evaluation import cross_fitting
from abaw.evaluation.calibration import Smoothing
from abaw.evaluation.calibration_search import Grid
from abaw.evaluation.cross_fitting import calibrate
from abaw.evaluation.scores import compare, summarise
from abaw.evaluation.tracks import Track, score_tracks, write_track
from abaw.tasks import AU, EXPR, TASKS, VA
from tests.support.label_arrays import labels_from
from tests.support.tracks import simulate, smooth_noise


def test_calibration_gains_as_much_on_fresh_videos_as_it_says():
    tracks, labels_of = simulate(30, seed=0, bias=1.0)
    result = calibrate(tracks, labels_of, folds=5)
    fresh, fresh_labels = simulate(40, seed=1, bias=1.0)
    raw = score_tracks(fresh, fresh_labels, TASKS)
    better = score_tracks(map(result.calibration.apply, fresh), fresh_labels, TASKS)
    gains = compare(better, raw)
    for task in TASKS:
        report = result.reports[task]
        low, high = gains[task.name]["interval"]
        assert low > 0.02, task
        assert low <= report.cross_fitted - report.raw <= high, (task, report, gains[task.name])
        assert report.raw < report.cross_fitted <= report.optimistic + 0.01
        assert report.gain_interval[0] < report.cross_fitted - report.raw < report.gain_interval[1]
    assert result.calibration.smoothing[VA].half_width > 1
    assert np.mean(result.calibration.au_thresholds) < 0.45
    raw_scores = summarise(score_tracks(tracks, labels_of, TASKS), draws=0)
    assert {t: result.reports[t].raw for t in TASKS} == pytest.approx(
        {t: raw_scores[t.name]["score"] for t in TASKS}
    )
    assert json.loads(json.dumps(result.to_dict()))["reports"]["va"]["raw"] == result.reports[VA].raw


def sure_of_itself(name, sureness, accuracy, rng):
    """A track and its labels: one class has the probability `sureness`, and is right in a share of frames."""
    n, frames = 200, np.arange(200)
    shown, right = rng.integers(0, 8, n), rng.random(n) < accuracy
    expr = np.full((n, 8), (1 - sureness) / 7, np.float32)
    expr[frames, shown] = sureness
    truth = np.where(right, shown, (shown + rng.integers(1, 8, n)) % 8)
    labels = labels_from(expr=truth, expr_valid=np.ones(n, bool))
    return Track(video=name, seen=np.ones(n, bool), values={EXPR: expr}), labels


@pytest.mark.parametrize("other", [(0.99, 0.6), (0.4, 0.95)], ids=["as the first", "the opposite"])
def test_a_temperature_is_judged_on_videos_that_did_not_choose_it(other):
    """Where the folds need opposite temperatures, each would gain by its own and loses by the other's."""
    rng, tracks, labels, folds = np.random.default_rng(0), [], {}, {}
    for fold, (sureness, accuracy) in enumerate([(0.99, 0.6), other]):
        for number in range(5):
            name = f"{fold}-{number}"
            track, labels[name] = sure_of_itself(name, sureness, accuracy, rng)
            tracks.append(track)
            folds[name] = fold
    result = calibrate(tracks, labels.__getitem__, folds=folds)
    (note,) = [note for note in result.reports[EXPR].notes if note.startswith("temperature")]
    before, after = map(float, re.findall(r"\d\.\d{4}", note))
    if other == (0.99, 0.6):
        assert after < before
        assert result.calibration.temperature[EXPR] > 1.5
    else:
        assert after > before
        assert EXPR not in result.calibration.temperature


def imagined(name, labels, seen, rng):
    """What a middling network might say: noisy, late, too rarely sure of units, and fond of some classes."""
    n, fond = len(seen), np.log([0.3, 0.1, 0.05, 0.05, 0.2, 0.1, 0.05, 0.15])
    labels = labels.rows(0, n)
    va = labels[VA].values + rng.normal(0, 0.15, 2) + rng.normal(0, 0.3, (n, 2))
    expr = 2.5 * np.eye(8)[labels[EXPR].values] + fond + rng.normal(0, 0.4, 8) + 1.5 * rng.normal(size=(n, 8))
    au = 2.5 * labels[AU].values - 1.8 + rng.normal(0, 0.3, 12) + rng.normal(size=(n, 12))
    values = {VA: va.clip(-1, 1), EXPR: softmax(expr, axis=1), AU: expit(au)}
    late = {task: np.roll(v, 2, axis=0).astype(np.float32) for task, v in values.items()}
    return Track(video=name, seen=seen, values=late)


def generated(n_videos, seed):
    """Tracks and labels of the training videos that `abaw synth` would draw."""
    rng, preset, labels = np.random.default_rng(seed), PRESETS["demo"], {}
    for spec in plan_videos(videos=n_videos, frames=60, seed=seed, preset=preset):
        if spec.split == "train":
            animation = animate(spec.script, preset.statistics, np.random.default_rng(spec.seed)).labels
            blank = Labels.unlabelled(len(animation))
            annotated = {task: animation[task] for task in spec.tasks}
            labels[spec.video] = Labels(len(animation), {**blank.by_task, **annotated})
    tracks = [imagined(video, of, np.ones(len(of) - 1, bool), rng) for video, of in labels.items()]
    return tracks, labels.__getitem__


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda seed: generated(60, seed), id="large gains"),
        # where nearly nothing can be gained, what chance makes look best is chosen most easily
        pytest.param(lambda seed: simulate(24, seed, noise=0.1, bias=0.05), id="small gains"),
    ],
)
def test_what_calibration_says_of_itself_is_neither_biased_nor_too_sure(make):
    misses, inside = {task: [] for task in TASKS}, []
    for seed in range(16):
        (tracks, labels_of), (fresh, fresh_labels) = make(seed), make(1000 + seed)
        result = calibrate(tracks, labels_of)
        raw = score_tracks(fresh, fresh_labels, TASKS)
        better = score_tracks(map(result.calibration.apply, fresh), fresh_labels, TASKS)
        gains = compare(better, raw)
        for task, report in result.reports.items():
            own, (low, high) = report.cross_fitted - report.raw, gains[task.name]["interval"]
            misses[task].append(own - gains[task.name]["difference"])
            inside.append(low <= own <= high)
    for task, miss in misses.items():
        assert abs(np.mean(miss)) <= 3 * np.std(miss) / len(miss) ** 0.5, (task, np.mean(miss))
    # two estimates from as many videos differ by sqrt(2) of the error that an interval is made for: 83 %
    assert np.mean(inside) >= 0.7, np.mean(inside)


@pytest.mark.slow
def test_calibration_keeps_its_word_on_other_generated_videos(tmp_path, capsys):
    """With so many videos to choose on, and fewer fresh ones, nine in ten tasks lie in the interval."""
    for name, n_videos, seed in (("own", 120, 0), ("fresh", 60, 1)):
        write_dataset(tmp_path / name, videos=n_videos, frames=60, seed=seed, progress=False)
        rng, index = np.random.default_rng(seed), build_index(DataSource(tmp_path / name))
        for video in index.annotated(None, TASKS):
            track = imagined(index.videos[video], index.labels(video), index.visible(video), rng)
            write_track(track, tmp_path / f"{name} tracks")
    own, fresh, stored = (str(tmp_path / name) for name in ("own", "fresh", "calibration.json"))
    assert main(["calibrate", f"{own} tracks", own, "--split=train", f"--out={stored}", "--json"]) == 0
    reports = json.loads(capsys.readouterr().out)["reports"]
    scored = ["score", f"{fresh} tracks", fresh, f"--calibration={stored}", f"--against={fresh} tracks"]
    assert main([*scored, "--json"]) == 0
    gains = json.loads(capsys.readouterr().out)["against"]
    for task, report in reports.items():
        (low, high), gain = gains[task]["interval"], report["cross_fitted"] - report["raw"]
        assert low > 0, (task, gains[str(task)])
        assert low <= gain <= high, (task, gain, gains[task])
        assert 0 < report["gain_interval"][0] < gain < report["gain_interval"][1]


def test_what_does_not_gain_is_left_out_and_said():
    tracks, labels_of = simulate(12, seed=0, noise=0.0)
    result = calibrate(tracks, labels_of, folds=3)
    va = result.reports[VA]
    assert result.calibration.smoothing[VA] == Smoothing()
    assert va.raw == va.cross_fitted == va.optimistic
    assert va.gain_interval is None
    assert len(va.notes) == 1
    assert va.notes[0].startswith(
        "smoothing: +0.0000 on 12 held-out videos, 95 % [+0.0000, +0.0000], a gain in"
    )
    assert va.notes[0].endswith(": left out, no gain")


def test_what_gains_only_where_it_was_chosen_is_left_out(monkeypatch):
    """As if the corrections had passed their trial by chance."""
    monkeypatch.setattr(cross_fitting, "best_of", lambda trials: trials[0] if trials else None)
    tracks, labels_of = simulate(12, seed=0, noise=0.0)
    result = calibrate(tracks, labels_of, folds=3)
    va = result.reports[VA]
    assert result.calibration.smoothing[VA] == Smoothing()
    assert (va.cross_fitted, va.gain_interval) == (va.raw, None)
    (note,) = va.notes
    assert note.endswith(": left out, no gain when this choice itself is cross-fitted")


def test_temperature_is_found_where_the_model_is_too_sure():
    rng = np.random.default_rng(0)
    tracks, labels = [], {}
    for k in range(10):
        p = np.exp(smooth_noise(rng, 400, 8, 40))
        p /= p.sum(1, keepdims=True)
        n = np.ones(400, bool)
        expr = np.array([rng.choice(8, p=row) for row in p])  # as likely as the model ought to say
        labels[f"v{k}"] = labels_from(expr=expr, expr_valid=n)
        tracks.append(
            Track(
                video=f"v{k}", seen=n, values={EXPR: (p**3 / (p**3).sum(1, keepdims=True)).astype(np.float32)}
            )
        )
    result = calibrate(tracks, labels.__getitem__, folds=3)
    assert 2 < result.calibration.temperature[EXPR] < 4.5
    assert any(
        note.startswith("temperature") and note.endswith(": kept") for note in result.reports[EXPR].notes
    )
    assert set(result.reports) == {EXPR}


@pytest.fixture
def chosen(monkeypatch):
    """Every choice made: the fold left out, the videos it was made on, and what came out."""
    made = []
    choose = Grid.choose

    def watched(grid, videos, **how):
        choice = choose(grid, videos, **how)
        made.append((how["without"], {grid.tracks[v].video for v in videos}, grid.calibration(choice)))
        return choice

    monkeypatch.setattr(Grid, "choose", watched)
    return made


def test_both_subjects_of_a_recording_are_held_out_together(chosen):
    tracks, labels_of = simulate(8, seed=0)
    calibrate([replace(track, values={VA: track.values[VA]}) for track in tracks], labels_of, folds=4)
    without = {fold: on for fold, on, _ in reversed(chosen) if fold is not None}
    held_out = [{track.video for track in tracks} - on for on in without.values()]
    assert sorted(map(sorted, held_out)) == [[f"v{k}_left", f"v{k}_right"] for k in range(4)]
    assert all(not on & held_out[list(without).index(fold)] for fold, on, _ in chosen if fold is not None)


def test_what_a_video_is_scored_with_knows_nothing_of_its_fold(chosen):
    """Neither its labels nor its predictions: other ones there change none of these choices."""
    tracks, labels_of = simulate(12, seed=0, noise=0.6, bias=1.0)
    folds = {track.video: k // 2 % 3 for k, track in enumerate(tracks)}
    others, other_labels = simulate(12, seed=1, noise=2.0, bias=-3.0)
    others = {track.video: track for track in others}
    before = calibrate(tracks, labels_of, folds)
    for fold in range(3):
        first = [choice for choice in chosen if choice[0] == fold]
        n_made = len(chosen)
        calibrate(
            [others[t.video] if folds[t.video] == fold else t for t in tracks],
            lambda video, fold=fold: (other_labels if folds[video] == fold else labels_of)(video),
            folds,
        )
        assert [choice for choice in chosen[n_made:] if choice[0] == fold] == first
        assert len(first) > 3
        del chosen[n_made:]
    assert {before.reports[task].gain_interval is not None for task in TASKS} == {True}


def test_given_folds_are_used_and_must_be_complete():
    tracks, labels_of = simulate(4, seed=0)
    folds = {track.video: k % 2 for k, track in enumerate(tracks)}
    assert set(calibrate(tracks, labels_of, folds).reports) == set(TASKS)
    del folds[tracks[2].video]
    with pytest.raises(AbawError, match="1 videos have none, such as v1_left"):
        calibrate(tracks, labels_of, folds)
    with pytest.raises(UsageError, match="at least 2"):
        calibrate(tracks, labels_of, 1)


def test_one_recording_cannot_be_held_out():
    tracks, labels_of = simulate(2, seed=0)
    result = calibrate(tracks, labels_of)
    assert result.calibration.smoothing[VA] == Smoothing()
    assert "too few recordings" in result.reports[VA].notes[0]


def test_no_labels_are_an_error():
    tracks, _ = simulate(2, seed=0)
    with pytest.raises(AbawError, match="none of the predicted tasks is labelled"):
        calibrate(tracks, lambda video: Labels.unlabelled(10))
