"""What pyproject.toml cannot say: the wheel holds configs/ as abaw/configs/."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Builds the package with its configurations; an editable install reads those of the repository."""

    def run(self) -> None:
        """Copies them beside the modules."""
        super().run()
        if not self.editable_mode:
            shutil.copytree("configs", Path(self.build_lib) / "abaw/configs", dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConfigs})
