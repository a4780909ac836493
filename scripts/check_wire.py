"""What neighbours say to each other, compared with what they said in the last release.

Processes are updated one after the other, so every release must get on with the one before it.
`python -m scripts.check_wire` names each change that would break such a neighbour;
`--record 0.2.0` keeps what is said now as a release, in docs/wire/.

Seen is what a schema says: not the rules that stand in code, as which currencies there are.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI

from markethall.app import INTERNAL
from markethall.shared.http.openapi import extend_openapi
from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.errors import DomainError
from markethall.shared.messaging.events import Event, EventEnvelope
from scripts.wire_compatibility import Wire, breaks

RELEASES: Final = Path(__file__).parents[1] / "docs" / "wire"
HOW_TO_RECORD: Final = (
    "If a service one release older works with this, the rules in\n"
    "scripts/wire_compatibility.py are wrong. Else make it additive: a field with a default, a\n"
    "method beside the old one. With a release: python -m scripts.check_wire --record VERSION"
)


def main(arguments: list[str] | None = None, releases: Path = RELEASES) -> int:
    parser = argparse.ArgumentParser(prog="check_wire", description=__doc__)
    parser.add_argument("--record", metavar="VERSION", help="keep what is said now as a release")
    version = parser.parse_args(arguments).record
    last = last_release(releases)
    found = breaks(last, said_now()) if last else []
    print(*found, sep="\n", end="\n" if found else "")
    if found:
        print(f"{len(found)} changes would break a neighbour one release older.\n{HOW_TO_RECORD}")
        return 1
    return record(version, releases) if version else _agree(last)


def record(version: str, releases: Path) -> int:
    path = releases / f"{version}.json"
    if path.exists():
        print(f"{path.name} is recorded already: what was released does not change.")
        return 2
    path.write_text(json.dumps(said_now(), indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    print(f"recorded: {path}")
    return 0


def _agree(last: Wire | None) -> int:
    print("wire: nothing that would break a neighbour one release older" if last else "wire: new")
    return 0


def last_release(releases: Path) -> Wire | None:
    """The newest that is recorded."""
    paths = sorted(releases.glob("*.json"), key=lambda path: number_of(path.stem))
    found: Wire | None = json.loads(paths[-1].read_text()) if paths else None
    return found


def number_of(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def said_now() -> dict[str, Any]:
    """Of all that is called or heard by a neighbour: an OpenAPI document, events, and around them
    the actor in a service token and the envelope in a stream."""
    return {
        "openapi": _document(),
        "actor": Actor.model_json_schema(),
        "envelope": EventEnvelope.model_json_schema(mode="serialization"),
        "events": dict(_events()),
        "refusals": dict(_refusals()),
    }


def _document() -> dict[str, Any]:
    # no version of ours: two releases that say the same are the same document
    app = FastAPI(title="Markethall, between its contexts", version="1")
    for router in INTERNAL.values():
        app.include_router(router)
    document = extend_openapi(app)()
    for operation in (one for path in document["paths"].values() for one in path.values()):
        # the examples of refusals name the codes; what else is in them is for people
        for response in operation["responses"].values():
            for content in response["content"].values() if "content" in response else ():
                _without_values(content)
    return document


def _without_values(content: dict[str, Any]) -> None:
    if "examples" in content:
        content["examples"] = {code: {} for code in content["examples"]}


def _events() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for kind in _all_below(Event):
        if kind.__module__.startswith("markethall."):
            yield kind.type, kind.model_json_schema(mode="serialization")


def _refusals() -> Iterator[tuple[str, int]]:
    """All that a caller of this release can tell apart, and their statuses."""
    for code, kind in DomainError.by_code.items():
        if kind.__module__.startswith("markethall."):
            yield code, kind.status


def _all_below(kind: type[Event]) -> Iterator[type[Event]]:
    for below in kind.__subclasses__():
        yield below
        yield from _all_below(below)


if __name__ == "__main__":
    sys.exit(main())
