"""Compares the OpenAPI document with the recorded one, docs/openapi/<version>.json.

`python -m scripts.check_openapi` prints each change that breaks a client of the recorded document,
and tells whether the record is current. `--record` writes the record of this version. It writes
nothing if a change is incompatible, unless `--accept-incompatible` is given too: only for a version
that is not released, with a line in CHANGELOG.md.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from markethall import __version__
from scripts.check_rpc import number_of
from scripts.openapi_compatibility import incompatible_changes
from scripts.openapi_document import RECORDS, as_text, build_document

HOW_TO_CHANGE: Final = (
    "Make the change additive: an optional field or parameter, an operation beside the old one.\n"
    "If the version is not released yet, and the CHANGELOG says what changes:\n"
    "make openapi ARGS=--accept-incompatible"
)
HOW_TO_RECORD: Final = "The recorded OpenAPI document is not current: make openapi"


def main(arguments: list[str] | None = None, records: Path = RECORDS) -> int:
    options = _parser().parse_args(arguments)
    document = build_document()
    found = {} if options.accept_incompatible else found_changes(document, records)
    for version, changes in found.items():
        print(f"incompatible with {version}:", *changes, sep="\n  ")
    if found:
        print(HOW_TO_CHANGE)
        return 1
    return _record(document, records) if options.record else _compare(document, records)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="check_openapi", description=__doc__)
    parser.add_argument("--record", action="store_true", help="write the record of this version")
    parser.add_argument(
        "--accept-incompatible", action="store_true", help="also if a change is incompatible"
    )
    return parser


def found_changes(document: dict[str, Any], records: Path = RECORDS) -> dict[str, list[str]]:
    """Map each recorded version to the changes that break its clients; without empty lists."""
    found = {
        path.stem: incompatible_changes(json.loads(path.read_text()), document)
        for path in _newest(records)
    }
    return {version: changes for version, changes in found.items() if changes}


def _newest(records: Path) -> Iterator[Path]:
    """Yield the record of this version and that of the version before, if they exist."""
    paths = sorted(records.glob("*.json"), key=lambda path: number_of(path.stem))
    yield from [path for path in paths if number_of(path.stem) <= number_of(__version__)][-2:]


def _record(document: dict[str, Any], records: Path) -> int:
    path = records / f"{__version__}.json"
    path.write_text(as_text(document))
    print(f"recorded: {path}")
    return 0


def _compare(document: dict[str, Any], records: Path) -> int:
    if is_current(document, records):
        print("openapi: the record is current")
        return 0
    print(HOW_TO_RECORD)
    return 1


def is_current(document: dict[str, Any], records: Path = RECORDS) -> bool:
    path = records / f"{__version__}.json"
    return path.exists() and path.read_text() == as_text(document)


if __name__ == "__main__":
    sys.exit(main())
