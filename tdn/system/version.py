"""The version of the package."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("tdn-potential")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
