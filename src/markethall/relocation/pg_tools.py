"""pg_dump and psql: where they are, and which are new enough."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from markethall.embedded.binaries import wheel_folder
from markethall.moving.addresses import MoveFailed


@dataclass(frozen=True)
class Programs:
    """pg_dump and psql of one Postgres installation."""

    folder: Path
    major: int

    @property
    def pg_dump(self) -> str:
        return str(self.folder / "pg_dump")

    @property
    def psql(self) -> str:
        return str(self.folder / "psql")


def programs_for(source: int, target: int) -> Programs:
    """The oldest that read a server of the major version `source`. Raises MoveFailed."""
    if target < source:
        raise MoveFailed(f"the server there is Postgres {target}, older than {source} here")
    found = list(_installations())
    able = [programs for programs in found if programs.major >= source]
    if not able:
        have = ", ".join(str(programs.major) for programs in found) or "none"
        raise MoveFailed(f"pg_dump and psql of Postgres {source} are needed; found: {have}")
    return min(able, key=lambda programs: programs.major)


def _installations() -> Iterator[Programs]:
    """On PATH, and in the wheel of the embedded server."""
    on_path = shutil.which("pg_dump")
    for folder in (on_path and Path(on_path).parent, wheel_folder()):
        majors = [_major_in(folder / name) for name in ("pg_dump", "psql")] if folder else [0]
        if folder and all(majors):
            yield Programs(folder, min(majors))


def _major_in(program: Path) -> int:
    """0 where there is no such program of Postgres."""
    with suppress(OSError):
        told = subprocess.run(  # noqa: S603 - asks for its version
            [str(program), "--version"], capture_output=True, text=True, check=False
        )
        if found := re.search(r"\(PostgreSQL\) (\d+)", told.stdout):
            return int(found[1])
    return 0
