"""Compares the internal API and the events with those of the last release.

During an update, processes of two releases call each other, so both releases must be compatible.
`python -m scripts.check_rpc` prints each incompatible change. `--record 0.2.0` stores the current
state as release 0.2.0 in docs/rpc/.

Only schemas are compared, not rules in the code, such as the list of known currencies.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI

from markethall.contexts import topology
from markethall.shared.http.openapi import extend_openapi
from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.errors import DomainError
from markethall.shared.messaging.events import Event, EventEnvelope
from scripts.rpc_compatibility import ApiRecord, incompatible_changes

RELEASES: Final = Path(__file__).parents[1] / "docs" / "rpc"
HOW_TO_RECORD: Final = (
    "If a service one release older works with this change, the rules in\n"
    "scripts/rpc_compatibility.py are wrong. Else make it additive: a field with a default, a\n"
    "method beside the old one. For a release: python -m scripts.check_rpc --record VERSION"
)


def main(arguments: list[str] | None = None, releases: Path = RELEASES) -> int:
    parser = argparse.ArgumentParser(prog="check_rpc", description=__doc__)
    parser.add_argument("--record", metavar="VERSION", help="store the current state as a release")
    version = parser.parse_args(arguments).record
    last = last_release(releases)
    found = incompatible_changes(last, current_record()) if last else []
    print(*found, sep="\n", end="\n" if found else "")
    if found:
        print(f"{len(found)} changes would break a service one release older.\n{HOW_TO_RECORD}")
        return 1
    return record(version, releases) if version else _agree(last)


def record(version: str, releases: Path) -> int:
    path = releases / f"{version}.json"
    if path.exists():
        print(f"{path.name} is recorded already, and a release does not change.")
        return 2
    path.write_text(
        json.dumps(current_record(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    )
    print(f"recorded: {path}")
    return 0


def _agree(last: ApiRecord | None) -> int:
    print("rpc: compatible with a service one release older" if last else "rpc: new")
    return 0


def last_release(releases: Path) -> ApiRecord | None:
    """Return the record of the newest release, or None if there is none."""
    paths = sorted(releases.glob("*.json"), key=lambda path: number_of(path.stem))
    found: ApiRecord | None = json.loads(paths[-1].read_text()) if paths else None
    return found


def number_of(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def current_record() -> dict[str, Any]:
    """Return the schemas of this code: internal API, events, envelope, actor and error codes."""
    return {
        "openapi": _document(),
        "actor": Actor.model_json_schema(),
        "envelope": EventEnvelope.model_json_schema(mode="serialization"),
        "events": dict(_events()),
        "errors": dict(_errors()),
    }


def _document() -> dict[str, Any]:
    # a constant version, so that releases with the same API have equal documents
    app = FastAPI(title="Markethall, between its contexts", version="1")
    for manifest in topology().manifests:
        if internal_api := manifest.load_parts().internal_api:
            app.include_router(internal_api.routes.router)
    document = extend_openapi(app)()
    for operation in (one for path in document["paths"].values() for one in path.values()):
        # only the codes of the error examples are compared, so their contents are removed
        for response in operation["responses"].values():
            for content in response["content"].values() if "content" in response else ():
                _without_values(content)
    return document


def _without_values(content: dict[str, Any]) -> None:
    if "examples" in content:
        content["examples"] = {code: {} for code in content["examples"]}


def _events() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for kind in _subclasses(Event):
        if kind.__module__.startswith("markethall."):
            yield kind.type, kind.model_json_schema(mode="serialization")


def _errors() -> Iterator[tuple[str, int]]:
    """Yield each error code of this release with its HTTP status."""
    for code, kind in DomainError.by_code.items():
        if kind.__module__.startswith("markethall."):
            yield code, kind.status


def _subclasses(kind: type[Event]) -> Iterator[type[Event]]:
    for below in kind.__subclasses__():
        yield below
        yield from _subclasses(below)


if __name__ == "__main__":
    sys.exit(main())
