"""Report of the data set check, as a text table and as JSON."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from abaw.data.check.consistency import Balance, VideoCounts
from abaw.data.check.kinds import KINDS, DataFinding

_EXAMPLES = 3  # findings per kind in the table


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """Results of a data set check.

    Attributes:
        root: The checked folder.
        image_roots: Image folders in search order.
        videos: Counts of every video, sorted by name.
        balance: Label counts per label set and split (`challenge train`).
        findings: All findings, sorted by kind and place.
        ignored: Kinds that do not count as defects.
        n_read: Number of images that were read; the others were unchanged since the last check.
    """

    root: Path
    image_roots: tuple[Path, ...]
    videos: list[VideoCounts]
    balance: dict[str, Balance]
    findings: list[DataFinding]
    ignored: frozenset[str]
    n_read: int

    @property
    def ok(self) -> bool:
        """Whether there are no defects."""
        return not any(self._fails(finding.kind) for finding in self.findings)

    def _fails(self, kind: str) -> bool:
        return KINDS[kind].fails and kind not in self.ignored

    def to_json(self) -> str:
        """The report as a JSON object, with each finding."""
        counts = Counter(finding.kind for finding in self.findings)
        kinds = {
            kind: {"count": counts[kind], "fails": self._fails(kind), "hint": KINDS[kind].hint}
            for kind in counts
        }
        findings = [asdict(f) | {"path": None if f.path is None else str(f.path)} for f in self.findings]
        values: dict[str, Any] = {
            "root": str(self.root),
            "image_roots": [str(folder) for folder in self.image_roots],
            "ok": self.ok,
            "kinds": kinds,
            "findings": findings,
            "videos": [asdict(video) for video in self.videos],
            "balance": {name: balance.to_dict() for name, balance in self.balance.items()},
        }
        return json.dumps(values, indent=1)

    def table(self) -> str:
        """Counts, label balance, and findings with hints as plain text."""
        lines = [f"{self.root}", *self._counts(), ""]
        for name, balance in self.balance.items():
            lines += [*_balance_lines(name, balance), ""]
        return "\n".join(lines + self._finding_lines())

    def _counts(self) -> list[str]:
        n_frames = sum(video.frames for video in self.videos)
        n_images = sum(video.images for video in self.videos)
        lines = [f"  {len(self.videos):,} videos, {n_frames:,} frames, {n_images:,} of them with a crop"]
        lines += [f"  images in {folder}" for folder in self.image_roots]
        groups: dict[str, list[VideoCounts]] = {}
        for video in self.videos:
            for kind, split in video.splits.items():
                groups.setdefault(f"{kind} {split}", []).append(video)
        for group, videos in sorted(groups.items()):
            kind = group.split()[0]
            n_labelled = sum(video.labelled[kind] for video in videos)
            n_without = sum(video.labelled_without_crop[kind] for video in videos)
            lines.append(
                f"  {group:<11} {len(videos):>5,} videos {sum(v.rows[kind] for v in videos):>11,} rows "
                f"{n_labelled:>11,} labelled {n_without:>9,} of those without a crop"
            )
        return lines

    def _finding_lines(self) -> list[str]:
        by_kind: dict[str, list[DataFinding]] = {}
        for finding in self.findings:
            by_kind.setdefault(finding.kind, []).append(finding)
        lines = []
        for kind in sorted(by_kind, key=lambda kind: not self._fails(kind)):
            found = by_kind[kind]
            lines.append(f"{'DEFECT' if self._fails(kind) else 'note  '} {kind}: {len(found):,}")
            lines += [f"         {finding.place}: {finding.detail}" for finding in found[:_EXAMPLES]]
            lines += [f"         … {len(found) - _EXAMPLES:,} more"] * (len(found) > _EXAMPLES)
            lines.append(f"         -> {KINDS[kind].hint}")
        n_defects = sum(self._fails(finding.kind) for finding in self.findings)
        return [*lines, "no defects" if self.ok else f"{n_defects:,} defects"]


def _balance_lines(name: str, balance: Balance) -> list[str]:
    """Lines with class and action unit shares, and histograms of valence and arousal."""
    counts = balance.to_dict()
    lines = []
    if counts["va"]["frames"]:
        for dimension in ("valence", "arousal"):
            shares = " ".join(f"{n / counts['va']['frames']:4.0%}" for n in counts["va"][dimension])
            lines.append(f"{name} {dimension} from -1 to 1 in tenths of the range: {shares}")
    if n_expr := sum(counts["expr"].values()):
        shares = ", ".join(f"{label} {n / n_expr:.1%}" for label, n in counts["expr"].items())
        lines.append(f"{name} expressions: {shares}")
    shares = ", ".join(
        f"{unit} {n['present'] / (n['present'] + n['absent']):.1%}"
        for unit, n in counts["au"].items()
        if n["present"] + n["absent"]
    )
    return lines + [f"{name} action units present: {shares}"] * bool(shares)
