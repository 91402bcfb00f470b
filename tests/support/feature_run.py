"""Command lines of trainings on cached features."""

from pathlib import Path

from tests.support.project import PROJECT

CONFIG = PROJECT / "configs" / "features.yaml"


BACKBONE = {"name": "test_vit", "weights": "none", "image_size": 32}


def words(subcommand: str, root: Path, features: Path | None, *more: str) -> list[str]:
    """What follows `abaw` for a tiny network on the features of a folder, None for images."""
    given = [f"--model.backbone.{name}={value}" for name, value in BACKBONE.items()]
    data = [f"--data.root={root}", "--data.window=16", "--data.batch_size=4", "--data.workers=0"]
    trainer = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.max_epochs=1"]
    cache = [f"--data.features={'null' if features is None else f'[{features}]'}"]
    return [subcommand, f"--config={CONFIG}", *given, *data, *trainer, *cache, *more]
