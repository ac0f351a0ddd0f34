"""The version of the installed package."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("muse-as-service")
except PackageNotFoundError:
    # The sources are used without an installation.
    __version__ = "unknown"
