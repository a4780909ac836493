"""Finds pg_dump and psql of a version that can read the source server."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from markethall.local.postgres.binaries import wheel_bin_folder
from markethall.relocation.database_urls import RelocationFailed


@dataclass(frozen=True)
class PgTools:
    """pg_dump and psql of one Postgres installation."""

    folder: Path
    major: int

    @property
    def pg_dump(self) -> str:
        return str(self.folder / "pg_dump")

    @property
    def psql(self) -> str:
        return str(self.folder / "psql")


def find_pg_tools(source_major: int, target_major: int) -> PgTools:
    """Return the oldest tools that can read the source server. Raises RelocationFailed."""
    if target_major < source_major:
        raise RelocationFailed(
            f"the target server is Postgres {target_major}, older than the source, {source_major}"
        )
    found = list(_installations())
    suitable = [tools for tools in found if tools.major >= source_major]
    if not suitable:
        have = ", ".join(str(tools.major) for tools in found) or "none"
        raise RelocationFailed(
            f"pg_dump and psql of Postgres {source_major} are needed; found: {have}"
        )
    return min(suitable, key=lambda tools: tools.major)


def _installations() -> Iterator[PgTools]:
    """Yield the tools on PATH, and those in the wheel of the embedded Postgres."""
    on_path = shutil.which("pg_dump")
    for folder in (on_path and Path(on_path).parent, wheel_bin_folder()):
        majors = [_major_of(folder / name) for name in ("pg_dump", "psql")] if folder else [0]
        if folder and all(majors):
            yield PgTools(folder, min(majors))


def _major_of(program: Path) -> int:
    """Return the major version of the program, or 0 if it is missing or not from Postgres."""
    with suppress(OSError):
        done = subprocess.run(  # noqa: S603 - only prints its version
            [str(program), "--version"], capture_output=True, text=True, check=False
        )
        if found := re.search(r"\(PostgreSQL\) (\d+)", done.stdout):
            return int(found[1])
    return 0
