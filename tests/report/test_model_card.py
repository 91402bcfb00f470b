"""The card of a model says what is known, and what is not."""

from typing import Any

import pytest
import yaml

from abaw.evaluation.scores import summarise
from abaw.evaluation.tracks import score_tracks
from abaw.report.model_card import model_card
from abaw.tasks import TASKS
from tests.support.networks import small_network
from tests.support.predicted_runs import simulated

TRACKS, LABELS = simulated(6, seed=1)
SCORES = summarise(score_tracks(TRACKS, LABELS.__getitem__, TASKS), draws=50)
ABOUT: dict[str, Any] = {
    "network": small_network().describe(),
    "windows": {"window": 64, "stride": 32, "step": 2},
    "masking": {"ratio": 0.5},
    "scores": SCORES,
    "settings": {"data": {"fold": None, "source": {"label_set": "challenge"}}},
}
RAN_ON = {
    "data": {"fingerprint": "0123456789abcdef", "videos": 564, "frames": 2_900_000},
    "versions": {"abaw": "0.1.0", "torch": "2.15.0", "timm": "1.0.31"},
    "device": "NVIDIA H100",
}


def card(**more: Any) -> str:
    return model_card(ABOUT | more.pop("about", {}), TASKS, name="lab/model", n_weights=1234, **more)


def test_a_complete_card() -> None:
    text = card(
        provenance=RAN_ON, data="Aff-Wild2, 6th ABAW", license="cc-by-nc-4.0", backbone_license="apache-2.0"
    )
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "cc-by-nc-4.0"
    assert front["library_name"] == "abaw"
    headings = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["Model", "Data", "Scores", "Intended use", "Limits", "Licences"]
    for task in TASKS:
        entry = SCORES[task.name]
        low, high = entry["interval"]
        assert f"{entry['score']:.3f} [{low:.3f}, {high:.3f}]" in text
    assert f"| AU12 | {SCORES['au']['per_au']['AU12']:.3f} |" in text
    for known in ("Aff-Wild2, 6th ABAW", "0123456789abcdef", "2,900,000", "H100", "apache-2.0", "1,234"):
        assert known in text
    assert "every other frame" in text
    assert "of 50%" in text
    assert 'abaw.load("lab/model")' in text


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"scores": {}}, "Not scored."),
        ({"settings": {"data": {"fold": 3}}}, "all folds but fold 3"),
        ({"calibration": {"temperature": {}}}, "A calibration is stored"),
        ({"masking": None}, "random frame masking of none"),
        ({"network": ABOUT["network"] | {"backbone": None}}, "cached features, then"),
    ],
)
def test_what_is_not_known_or_not_usual_is_said(about: dict[str, Any], said: str) -> None:
    text = card(about=about)
    assert said in text
    assert "Data set and edition: not stated." in text
    assert "Weights: not stated" in text
    assert "license" not in yaml.safe_load(text.split("---")[1])
