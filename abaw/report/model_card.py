"""The card of a model: what it is, what it was trained and scored on, what it is for, and its limits."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from abaw.evaluation.scores import by_label
from abaw.report.figures import score_name
from abaw.tasks import Task

_ABOUT = {
    "va": "valence and arousal, from -1 to 1",
    "expr": "probabilities of eight expressions",
    "au": "probabilities of twelve action units",
}
_PYTHON = """\
```python
import abaw

model = abaw.load("{name}")
table = model.predict_video("interview.mp4")
```
"""
_USE = """\
Research on facial affect: predictions for every frame of videos of people who agreed to it. The values
describe how a face would be *rated by annotators*, not what a person feels, thinks or intends.

Not for decisions about people, such as in hiring, policing, schools, insurance or medicine; to infer
emotions at work and in education is forbidden in the European Union, with few exceptions (Regulation
2024/1689, article 5).
"""
_LIMITS = """\
- Faces are aligned by five landmarks as in training, as `abaw analyze` does; other crops give other values.
- People, cameras, lighting and cultures other than those of the training data may be predicted worse; by how
  much is not known unless it was measured on such data. The scores above say nothing about it.
- Frames without a face are predicted from the frames around them, and are marked.
- Expressions are mutually exclusive classes of a scheme; a face may fit none of them, or several.
"""


def model_card(
    about: Mapping[str, Any],
    tasks: Sequence[Task],
    *,
    name: str,
    n_weights: int,
    provenance: Mapping[str, Any] | None = None,
    data: str | None = None,
    license: str | None = None,
    backbone_license: str | None = None,
) -> str:
    """The card as Markdown, with the metadata of the Hugging Face hub.

    Args:
        about: Plain values of the model, those under the key `abaw` of its checkpoint.
        tasks: The predicted tasks.
        name: Name of the model.
        n_weights: Number of weights of the network.
        provenance: What it was trained on, `provenance.json` of its run; None: unknown.
        data: Name and edition of the data set; None: not stated.
        license: Licence of the weights; None: not stated.
        backbone_license: Licence of the pretrained weights of the backbone; None: none, or not known.
    """
    network, windows = about["network"], about["windows"]
    backbone = network["backbone"]
    known = {"license": license, "library_name": "abaw", "pipeline_tag": "video-classification"}
    front = "".join(f"{key}: {json.dumps(value)}\n" for key, value in known.items() if value)
    encoder = (
        "cached features" if backbone is None else f"{backbone['name']} at {backbone['image_size']} pixels"
    )
    temporal = network["temporal"]
    parts = [
        f"---\n{front}tags: [facial-affect, valence-arousal, facial-expression, action-units]\n---\n",
        f"# {name}\n",
        f"Predicts {'; '.join(_ABOUT.get(t.name, t.name) for t in tasks)}, for every frame of a video.\n",
        _PYTHON.format(name=name),
        "## Model\n",
        f"{encoder}, then {temporal['layers']} transformer layers over windows of {windows['window']} frames"
        f" (every {_ordinal(windows['step'])}), trained with random frame masking"
        f" {_masking(about.get('masking'))}; {n_weights:,} weights. Method: Min, Yang, Lim et al., Emotion"
        " Recognition Using Transformers with Masked Learning (2024).\n",
        "## Data\n",
        *_data(about, provenance, data),
        "## Scores\n",
        *_scores(about, tasks),
        f"## Intended use\n\n{_USE}",
        f"## Limits\n\n{_LIMITS}",
        "## Licences\n",
        f"- Weights: {license or 'not stated; to be chosen before the model is passed on'}.",
        f"- Data: {data or 'the training data'}; its licence binds the weights too. That of Aff-Wild2 allows"
        " non-commercial research only.",
        f"- Pretrained weights of the backbone: {backbone_license or 'none, or licence not known'}.",
        f"- Code: abaw {version('abaw')}, Apache-2.0.\n",
    ]
    return "\n".join(parts)


def _ordinal(step: int) -> str:
    return "frame" if step == 1 else "other frame" if step == 2 else f"{step}th frame"


def _masking(masking: Mapping[str, Any] | None) -> str:
    return "of none" if masking is None else f"of {masking['ratio']:.0%}"


def _data(about: Mapping[str, Any], ran_on: Mapping[str, Any] | None, data: str | None) -> list[str]:
    settings = about.get("settings", {}).get("data", {})
    fold = settings.get("fold")
    split = "the official train and validation splits" if fold is None else f"all folds but fold {fold}"
    labels = settings.get("source", {}).get("label_set", "challenge")
    lines = [f"- Data set and edition: {data or 'not stated'}.", f"- Splits: {split}; labels: {labels}."]
    if ran_on is not None:
        found = ran_on["data"]
        lines.append(
            f"- {found['videos']:,} videos with {found['frames']:,} frames in all; fingerprint of labels and"
            f" frames: `{found['fingerprint']}`."
        )
        made = ", ".join(f"{name} {ran_on['versions'][name]}" for name in ("abaw", "torch", "timm"))
        lines.append(f"- Trained on {ran_on['device']} with {made}.")
    return ["\n".join(lines) + "\n"]


def _scores(about: Mapping[str, Any], tasks: Sequence[Task]) -> list[str]:
    scores = about.get("scores") or {}
    rows = [
        f"| {task.name.upper()} | {score_name(task)} | {_number(scores[task.name])} |"
        f" {scores[task.name]['frames']:,} |"
        for task in tasks
        if task.name in scores
    ]
    if not rows:
        return ["Not scored.\n"]
    labels = [
        f"| {label} | {score:.3f} |"
        for task in tasks
        if task.name in scores
        for label, score in by_label(task, scores[task.name]).items()
    ]
    calibrated = " A calibration is stored, and is not in these scores." if about.get("calibration") else ""
    return [
        "Official scores on the validation split, in brackets 95 % intervals of the bootstrap over"
        f" recordings. The best epoch was chosen on the same split, so they are optimistic.{calibrated}\n",
        "\n".join(["| task | score | value | frames |", "|---|---|---|---|", *rows]) + "\n",
        "\n".join(["| label | score |", "|---|---|", *labels]) + "\n",
    ]


def _number(entry: Mapping[str, Any]) -> str:
    ends = entry.get("interval")
    return f"{entry['score']:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")
