"""Copies a schema with pg_dump and psql in one transaction, and compares it before the commit."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from markethall.local.postgres.binaries import wheel_bin_folder

_LIBPQ_VARIABLES: Final = {
    "host": "PGHOST",
    "port": "PGPORT",
    "ssl": "PGSSLMODE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "options": "PGOPTIONS",
}


class RelocationFailed(RuntimeError):
    """The relocation failed; the message is one line. The source is unchanged."""


def libpq_environment(url: str) -> dict[str, str]:
    """Return the environment variables with which pg_dump and psql connect.

    The password is not passed as an argument, because every user of the machine can read the
    arguments of a process. Raises RelocationFailed.
    """
    parts = parse_url(url)
    given = {
        "PGHOST": parts.host,
        "PGPORT": parts.port,
        "PGUSER": parts.username,
        "PGPASSWORD": parts.password,
        "PGDATABASE": parts.database,
        **{
            _LIBPQ_VARIABLES[name]: value
            for name, value in parts.query.items()
            if name in _LIBPQ_VARIABLES
        },
    }
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MARKETHALL_")}
    return {**ours, **{name: str(value) for name, value in given.items() if value}}


def parse_url(url: str) -> URL:
    """Return the URL with the scheme `postgresql`. Raises RelocationFailed."""
    try:
        return make_url(url).set(drivername="postgresql")
    except (ArgumentError, ValueError):
        # `from None`, because the text of the original error contains the password
        raise RelocationFailed("an address is like postgresql://user:…@host/database") from None


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


# maps each table to its number of rows and a checksum, and each sequence to its position
RowChecksums = Mapping[str, str]

# DROP removes an empty schema, which an operator may have created; it fails if the schema is not
# empty
_BEGIN: Final = """
\\o /dev/null
BEGIN;
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS {schema};
"""
# settings of a session that make the text form of a row the same on both servers
TEXT_SETTINGS: Final = (
    "SET timezone = 'UTC'",
    "SET datestyle = 'ISO'",
    "SET intervalstyle = 'iso_8601'",
    "SET extra_float_digits = 1",
    "SET bytea_output = 'hex'",
)
# the checksum is a sum of hashes: it does not depend on the order of rows and needs little memory
_ROWS: Final = """
SELECT count(*) || ' rows, sum ' || coalesce(sum(('x' || encode(
    substring(sha256(convert_to(the_row::text, 'UTF8')) FROM 1 FOR 8), 'hex'))::bit(64)::bigint), 0)
FROM {relation} the_row
"""
_SEQUENCE: Final = """
SELECT 'at ' || last_value || CASE WHEN is_called THEN '' ELSE ', unused' END FROM {relation}
"""


@dataclass(frozen=True)
class SchemaCopy:
    """Pipes pg_dump into psql, in one transaction on the target that ends with a comparison."""

    tools: PgTools
    schema: str
    source_url: str
    target_url: str

    def run(self, snapshot: str, checksums: RowChecksums) -> None:
        """Copy the schema. Raises RelocationFailed, and then leaves the target unchanged."""
        with tempfile.TemporaryFile("w+") as errors:
            if not self._copy(snapshot, checksums, errors):
                reason = _first_error(errors)
                raise RelocationFailed(f"the copy failed, nothing is left of it: {reason}")

    def _copy(self, snapshot: str, checksums: RowChecksums, errors: IO[str]) -> bool:
        with subprocess.Popen(  # noqa: S603 - a program of Postgres
            [self.tools.psql, "-X", "-q", "-v", "ON_ERROR_STOP=1"],
            env=libpq_environment(self.target_url),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as psql:
            is_complete = self._write_script(psql, snapshot, checksums, errors)
        return is_complete and psql.returncode == 0

    def _write_script(
        self,
        psql: "subprocess.Popen[bytes]",
        snapshot: str,
        checksums: RowChecksums,
        errors: IO[str],
    ) -> bool:
        """Send the transaction to psql; COMMIT is sent only after everything else succeeded.

        psql's option --single-transaction is not used, because it commits an incomplete input.
        """
        script, output = cast("IO[bytes]", psql.stdin), cast("IO[bytes]", psql.stdout)
        with suppress(BrokenPipeError), script:
            script.write(_BEGIN.format(schema=self.schema).encode())
            script.flush()
            if not self._dump(snapshot, script, errors):
                return False
            script.write("".join(_comparison(checksums)).encode())
            script.flush()
            if output.readline() == b"compared\n":
                script.write(b"COMMIT;\n")
                script.flush()
                return True
        return False

    def _dump(self, snapshot: str, script: IO[bytes], errors: IO[str]) -> bool:
        command = [self.tools.pg_dump, "--schema", self.schema, "--snapshot", snapshot]
        done = subprocess.run(  # noqa: S603 - a program of Postgres
            [*command, "--no-owner", "--no-privileges"],
            env=libpq_environment(self.source_url),
            stdout=script,
            stderr=errors,
            check=False,
        )
        return done.returncode == 0


def checksum_query(relation: str, *, is_sequence: bool) -> str:
    return (_SEQUENCE if is_sequence else _ROWS).format(relation=relation)


def _comparison(checksums: RowChecksums) -> Iterator[str]:
    """Yield SQL that fails if a relation differs, analyzes the tables, and prints "compared"."""
    yield "".join(f"{setting};\n" for setting in TEXT_SETTINGS)
    for relation, expected in checksums.items():
        is_sequence = expected.startswith("at ")
        query = checksum_query(relation, is_sequence=is_sequence)
        yield f"DO $do$ BEGIN IF ({query}) <> '{expected}' THEN\n"
        yield f"RAISE EXCEPTION '{relation} is not the same'; END IF; END $do$;\n"
        if not is_sequence:
            yield f"ANALYZE {relation};\n"
    yield "\\echo compared\n"


def _first_error(errors: IO[str]) -> str:
    """Return only the line with the error, because further lines may quote data."""
    errors.seek(0)
    lines = [line.strip() for line in errors if line.strip()]
    found = [line for line in lines if re.search(r"ERROR|FATAL|error:", line)]
    return (found or lines[-1:] or ["no reason was given"])[0]
