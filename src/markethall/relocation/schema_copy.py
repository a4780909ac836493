"""The copy: by pg_dump and psql, in one transaction there, compared before it is committed."""

import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Final, cast

from markethall.moving.addresses import MoveFailed, libpq
from markethall.moving.programs import Programs

# table or sequence -> how many rows, and a sum over all of them
Census = Mapping[str, str]

# an empty schema of that name may have been made by hand
_BEGIN: Final = """
\\o /dev/null
BEGIN;
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS {schema};
"""
# a row's text is the same on both sides
SAME_TEXT: Final = (
    "SET timezone = 'UTC'",
    "SET datestyle = 'ISO'",
    "SET intervalstyle = 'iso_8601'",
    "SET extra_float_digits = 1",
    "SET bytea_output = 'hex'",
)
# of the rows in any order, and in no more memory than one of them needs
_ROWS: Final = """
SELECT count(*) || ' rows, sum ' || coalesce(sum(('x' || encode(
    substring(sha256(convert_to(the_row::text, 'UTF8')) FROM 1 FOR 8), 'hex'))::bit(64)::bigint), 0)
FROM {relation} the_row
"""
_SEQUENCE: Final = """
SELECT 'at ' || last_value || CASE WHEN is_called THEN '' ELSE ', unused' END FROM {relation}
"""


@dataclass(frozen=True)
class Copy:
    """pg_dump into psql, in one transaction there, which ends with a comparison."""

    programs: Programs
    schema: str
    source_url: str
    target_url: str

    def run(self, snapshot: str, census: Census) -> None:
        with tempfile.TemporaryFile("w+") as words:
            if not self._is_copied(snapshot, census, words):
                raise MoveFailed(f"the copy failed, nothing is left of it: {_telling(words)}")

    def _is_copied(self, snapshot: str, census: Census, words: IO[str]) -> bool:
        with subprocess.Popen(  # noqa: S603 - a program of Postgres
            [self.programs.psql, "-X", "-q", "-v", "ON_ERROR_STOP=1"],
            env=libpq(self.target_url),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
        ) as psql:
            whole = self._is_written(psql, snapshot, census, words)
        return whole and psql.returncode == 0

    def _is_written(
        self, psql: "subprocess.Popen[bytes]", snapshot: str, census: Census, words: IO[str]
    ) -> bool:
        """COMMIT is said when all before it was done: who is killed sooner leaves nothing.

        psql's own --single-transaction would commit whatever has come when its input ends.
        """
        script, told = cast("IO[bytes]", psql.stdin), cast("IO[bytes]", psql.stdout)
        with suppress(BrokenPipeError), script:
            script.write(_BEGIN.format(schema=self.schema).encode())
            script.flush()
            if not self._is_dumped(snapshot, script, words):
                return False
            script.write("".join(_compared(census)).encode())
            script.flush()
            if told.readline() == b"compared\n":
                script.write(b"COMMIT;\n")
                script.flush()
                return True
        return False

    def _is_dumped(self, snapshot: str, script: IO[bytes], words: IO[str]) -> bool:
        command = [self.programs.pg_dump, "--schema", self.schema, "--snapshot", snapshot]
        done = subprocess.run(  # noqa: S603 - a program of Postgres
            [*command, "--no-owner", "--no-privileges"],
            env=libpq(self.source_url),
            stdout=script,
            stderr=words,
            check=False,
        )
        return done.returncode == 0


def count(relation: str, *, is_sequence: bool) -> str:
    return (_SEQUENCE if is_sequence else _ROWS).format(relation=relation)


def _compared(census: Census) -> Iterator[str]:
    """Fails where a relation is not as counted; gathers statistics; says that all is well."""
    yield "".join(f"{setting};\n" for setting in SAME_TEXT)
    for relation, rows in census.items():
        counted = count(relation, is_sequence=rows.startswith("at "))
        yield f"DO $do$ BEGIN IF ({counted}) <> '{rows}' THEN\n"
        yield f"RAISE EXCEPTION '{relation} is not the same'; END IF; END $do$;\n"
        if not rows.startswith("at "):
            yield f"ANALYZE {relation};\n"
    yield "\\echo compared\n"


def _telling(words: IO[str]) -> str:
    """The first line that names an error; the data that Postgres quotes below it is not told."""
    words.seek(0)
    lines = [line.strip() for line in words if line.strip()]
    errors = [line for line in lines if re.search(r"ERROR|FATAL|error:", line)]
    return (errors or lines[-1:] or ["no reason was given"])[0]
