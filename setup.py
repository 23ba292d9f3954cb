"""What pyproject.toml cannot say: a package with compiled libraries inside makes a wheel for one
platform, and for any Python, since they do not use Python's interface. ``release/wheel.py`` puts
them there.
"""

from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel


class CompiledDistribution(Distribution):
    """Goes where platforms have their own folder."""

    def has_ext_modules(self):
        return True


class AnyPythonWheel(bdist_wheel):
    """Is named for the platform alone."""

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


if (Path(__file__).parent / "tdn" / "lib").is_dir():
    setup(distclass=CompiledDistribution, cmdclass={"bdist_wheel": AnyPythonWheel})
else:
    setup()
