"""Takes the configuration files into the package; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies `configs/` to `jaxvision/configs/`. An editable install finds it where it is."""

    def run(self):
        super().run()
        if not self.editable_mode:
            place = Path(self.build_lib, "jaxvision", "configs")
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree("configs", place, dirs_exist_ok=True, ignore=ignored)


setup(cmdclass={"build_py": BuildWithConfigs})
