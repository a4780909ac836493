"""Hostile requests, made for every route that the hall's own document names."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from markethall.payments.gateway import SandboxWebhooks
from tests.e2e.malformed_inputs import (
    FORM,
    JSON,
    STRANGE_IDS,
    STRANGE_VALUES,
    invalid_forms,
    invalid_json,
    malformed_requests,
    unusual_headers,
    wrong_content_types,
)
from tests.e2e.raw_http import Header, request
from tests.e2e.schema_samples import HOSTILE, RAW, Path, Samples, spoiled, without, wrong_type

MIB = 1024 * 1024
METHODS = (
    b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"PROPFIND",
    b"LINK", b"M-SEARCH", b"QUERY",
)  # fmt: skip


@dataclass(frozen=True)
class Attack:
    """`refused`: anything but a 4xx is a hole. `bare`: the HTTP parser may answer by itself."""

    name: str
    data: bytes
    refused: bool = False
    bare: bool = False


@dataclass(frozen=True)
class World:
    """What an attacker knows: the document, things that exist, and how to pass for somebody."""

    document: Mapping[str, Any]
    ids: Mapping[str, str]
    tokens: Mapping[str, str]
    forged: Sequence[tuple[str, bytes]]
    webhooks: SandboxWebhooks
    cursors: Mapping[str, str]

    def passport(self, who: str) -> list[Header]:
        token = self.tokens.get(who)
        return [(b"Authorization", b"Bearer " + token.encode())] if token else []


@dataclass
class Operation:
    """One method of one path, and good values for all it takes."""

    world: World
    method: str
    path: str
    spec: Mapping[str, Any]
    count: int = field(default=0)

    @property
    def guarded(self) -> bool:
        return bool(self.spec.get("security"))

    @property
    def media(self) -> str:
        return next(iter(self.spec.get("requestBody", {}).get("content", {})), "")

    @property
    def samples(self) -> Samples:
        return Samples(self.world.document, self.world.ids)

    @property
    def schema(self) -> Mapping[str, Any]:
        schema: Mapping[str, Any] = self.spec["requestBody"]["content"][self.media]["schema"]
        return schema

    def bodies(self) -> list[tuple[Any, Mapping[str, Any]]]:
        """A good body for each shape that is taken."""
        if not self.media:
            return []
        shapes = self.samples.branches(self.schema)
        return [(self.samples.sample(shape), shape) for shape in shapes]

    def parameters(self, where: str) -> list[Mapping[str, Any]]:
        return [one for one in self.spec.get("parameters", ()) if one["in"] == where]

    def target(self, query: str = "", **given: str) -> bytes:
        path = self.path
        for one in self.parameters("path"):
            value = given.get(one["name"], self.world.ids.get(one["name"], "none"))
            path = path.replace("{" + one["name"] + "}", value)
        return (path + query).encode("latin-1")

    def encoded(self, value: Any) -> bytes:
        if self.media == FORM:
            return urlencode(value if isinstance(value, dict) else {"value": value}).encode()
        if self.media != JSON:  # a file, read as it comes
            return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
        return json.dumps(value).encode()

    def attack(
        self,
        name: str,
        who: str = "all",
        target: bytes | None = None,
        headers: tuple[Header, ...] = (),
        body: bytes | None = None,
        *,
        media: bytes | None = None,
        **verdict: bool,
    ) -> Attack:
        """A request that is good but for what is given."""
        self.count += 1
        sent = [*self.world.passport(who), *headers]
        taken = {header.lower() for header, _ in headers}
        if body is None and self.bodies():
            body = self.encoded(self.bodies()[0][0])
        if self.media and media is None and b"content-type" not in taken:
            media = self.media.encode()
        if media:
            sent.append((b"Content-Type", media))
        if self.method == "POST" and b"idempotency-key" not in taken:
            sent.append((b"Idempotency-Key", b"%s-%d" % (self.path.encode(), self.count)))
        if self.method == "PATCH" and b"if-match" not in taken:
            # whatever came before: no attack fails for its version alone
            sent.append((b"If-Match", b"*"))
        where = self.target() if target is None else target
        wire = request(self.method.encode(), where, sent, body)
        return Attack(f"{self.method} {self.path} as {who}: {name}", wire, **verdict)


def operations(world: World) -> list[Operation]:
    methods = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
    return [
        Operation(world, method.upper(), path, spec)
        for path, specs in world.document["paths"].items()
        for method, spec in specs.items()
        if method in methods
    ]


def attacks(world: World) -> Iterator[Attack]:
    for operation in operations(world):
        for kind in (plain, bodies, fields, framing, headers, tokens, ids, queries, webhooks):
            yield from kind(operation)
    yield from methods(world)


def plain(op: Operation) -> Iterator[Attack]:
    """Nothing wrong but who asks."""
    yield op.attack("as it should be", "anonymous", refused=op.guarded)
    yield op.attack("as it should be", "disabled")


# Bodies


def bodies(op: Operation) -> Iterator[Attack]:
    if not op.media:
        yield op.attack("a body where none is due", media=JSON.encode(), body=b'{"a":1}')
        return
    good = op.encoded(op.bodies()[0][0])
    nonsense = invalid_json(good) if op.media == JSON else invalid_forms(good)
    for name, body in nonsense.items():
        for who in ("anonymous", "customer", "all"):
            yield op.attack(name, who, body=body, refused=op.media == JSON)
    small = op.media in {JSON, FORM}
    large = good + b" " * (MIB + 1 - len(good))
    yield op.attack("1 MiB and one byte", body=large, refused=small)
    yield op.attack("exactly 1 MiB", body=good + b" " * (MIB - len(good)))
    for media in wrong_content_types(op.media):
        yield op.attack(f"sent as {media[:40]!r}", media=media, refused=True)
    yield op.attack("no content type", media=b"", body=good, refused=True)


def fields(op: Operation) -> Iterator[Attack]:
    """Every value of every field replaced by everything."""
    for good, schema in op.bodies():
        for place in op.samples.places(schema, good):
            name = "/".join(map(str, place.path))
            for value in HOSTILE:
                wrong = op.media == JSON and wrong_type(place, value)
                body = op.encoded(_for(op, spoiled(good, place.path, value)))
                yield op.attack(f"/{name} is {value!r:.40}", body=body, refused=wrong)
            if op.media == JSON:
                yield from _unspeakable(op, good, place.path, name)
        for name in schema.get("required", ()) if isinstance(good, dict) else ():
            body = op.encoded(without(good, name))
            yield op.attack(f"without {name}", body=body, refused=op.media == JSON)


def _for(op: Operation, value: Any) -> Any:
    """Forms are text: a lone surrogate cannot even be written down."""
    if op.media != FORM or not isinstance(value, dict):
        return value if op.media == JSON else str(value).encode("utf-8", "replace")
    return {name: str(item).encode("utf-8", "replace") for name, item in value.items()}


def _unspeakable(op: Operation, good: Any, path: Any, name: str) -> Iterator[Attack]:
    marked = json.dumps(spoiled(good, path, "@RAW@"))
    for text in RAW:
        body = marked.replace('"@RAW@"', text).encode()
        # nothing at all between brackets is an empty list
        fits = text == "-0" or (not text and path[-1:] == (0,))
        yield op.attack(f"/{name} is {text[:20]}", body=body, refused=not fits)


def framing(op: Operation) -> Iterator[Attack]:
    """Bodies whose length is told in a strange way, or not at all."""
    if not op.media:
        return
    good = op.encoded(op.bodies()[0][0])
    chunked: Header = (b"Transfer-Encoding", b"chunked")
    whole = b"%x\r\n%s\r\n0\r\n\r\n" % (len(good), good)
    yield op.attack("chunked", headers=(chunked,), body=whole)
    drops = b"".join(b"1\r\n%c\r\n" % byte for byte in good) + b"0\r\n\r\n"
    yield op.attack("chunked byte by byte", headers=(chunked,), body=drops)
    large = b"100000\r\n" + b" " * MIB + b"\r\n" + whole
    small = op.media in {JSON, FORM}
    yield op.attack("chunked, 1 MiB and more", headers=(chunked,), body=large, refused=small)
    for name, length in {
        "negative": b"-1", "text": b"many", "float": b"1.5", "hex": b"0x10", "plus": b"+5",
        "empty": b"", "list": b"5, 5", "arabic": "٣".encode(), "2**64": b"%d" % 2**64,
    }.items():  # fmt: skip
        header = (b"Content-Length", length)
        yield op.attack(f"length {name}", headers=(header,), body=good, refused=True, bare=True)
    two = ((b"Content-Length", b"5"), (b"Content-Length", b"6"))
    yield op.attack("two lengths", headers=two, body=good, refused=True, bare=True)
    both = ((b"Content-Length", b"5"), chunked)
    yield op.attack("length and chunks", headers=both, body=whole, refused=True, bare=True)
    bad = {"size": b"zz\r\n", "overflow": b"f" * 20 + b"\r\n", "end": b"5\r\nabc"}
    for name, chunks in bad.items():
        body = chunks + b"\r\n\r\n" * 3
        yield op.attack(f"bad chunk {name}", headers=(chunked,), body=body, refused=True, bare=True)


# Heads


def headers(op: Operation) -> Iterator[Attack]:
    long = b"x" * 20_000
    for name, value in unusual_headers(long):
        yield op.attack(f"{name.decode()}: {value[:40]!r}", headers=((name, value),))
    bad_keys = (b"a" * 256, b"a b", "schlüssel".encode(), b"\xff", b'"open', b'"', b'""', b"a\tb")
    for value in bad_keys:
        refused = op.method == "POST" and "key" in str(op.spec.get("responses", {}).get("400", ""))
        key = (b"Idempotency-Key", value)
        yield op.attack(f"key {value[:20]!r}", headers=(key,), refused=refused)
    for value in (b"**", b"v1", b'"v1', b'"v' + b"9" * 20 + b'"', b'W/"v1"', b'*, "v1"', b"\xff"):
        tag = (b"If-Match", value)
        yield op.attack(f"If-Match {value!r}", headers=(tag,), refused=op.method == "PATCH")
    many = tuple((b"X-%d" % number, b"y") for number in range(2_000))
    yield op.attack("2000 headers", headers=many, bare=True)
    large = (b"X-Long", b"x" * 64_000)
    yield op.attack("64 kB of headers", headers=(large,), refused=True, bare=True)
    bad_lines = {"break": b"X-A: b\nX-C", "no name": b"", "space": b"a b", "NUL": b"a\x00b"}
    for flaw, line in bad_lines.items():
        yield op.attack(f"header with {flaw}", headers=((line, b"x"),), bare=True)
    yield op.attack("NUL in a value", headers=((b"X-A", b"a\x00b"),), bare=True)


def tokens(op: Operation) -> Iterator[Attack]:
    """A forged token is as good as none, where one is needed."""
    for name, token in op.world.forged:
        bearer = (b"Authorization", b"Bearer " + token)
        too_long = len(token) > 32 * 1024
        yield op.attack(
            f"token {name}", "anonymous", headers=(bearer,), refused=op.guarded, bare=too_long
        )
    good = op.world.tokens["all"].encode()
    for value in (b"", b"Bearer", b"Basic YTpi", b"Token " + good, good, b"bearer\tx", b"\xff"):
        header = (b"Authorization", value)
        yield op.attack(
            f"Authorization {value[:10]!r}", "anonymous", headers=(header,), refused=op.guarded
        )
    two = ((b"Authorization", b"Bearer garbage"), (b"Authorization", b"Bearer " + good))
    yield op.attack("two tokens", "anonymous", headers=two)


def webhooks(op: Operation) -> Iterator[Attack]:
    """Well signed, for the right provider, and hostile all the same."""
    if "webhooks" not in op.path:
        return
    event = {"event_id": "evt_hostile", "type": "charge.succeeded", "created": 1, "data": _CHARGE}
    inner = [("data", name) for name in _CHARGE]
    places: list[Path] = [("event_id",), ("type",), ("created",), ("data",), *inner]
    for place in places:
        for value in HOSTILE:
            body = op.encoded(spoiled(event, place, value))
            yield _signed(op, f"signed, {'/'.join(map(str, place))} is {value!r:.40}", body)
    for name, body in invalid_json(op.encoded(event)).items():
        yield _signed(op, f"signed {name}", body)
    for stamp in (
        b"t=9" * 40,
        b"t=-1,v1=0",
        b"t=1e9,v1=",
        b"t=,v1=",
        b"v1=x",
        b"\xff",
        b"t=1,v1=\xff",
    ):
        yield op.attack(f"signature {stamp!r}", headers=((SIGNATURE, stamp),), refused=True)


_CHARGE = {
    "operation_id": "01890000-0000-7000-8000-000000000000",
    "reference": "ch_1",
    "failure_code": "card_declined",
    "next_action": "https://sandbox.example/",
}
SIGNATURE = b"Sandbox-Signature"


def _signed(op: Operation, name: str, body: bytes) -> Attack:
    signature = op.world.webhooks.compute_signature(body, datetime.now(UTC)).encode()
    return op.attack(name, "anonymous", headers=((SIGNATURE, signature),), body=body)


# Addresses


def ids(op: Operation) -> Iterator[Attack]:
    """What stands where an id is due."""
    for one in op.parameters("path"):
        good = op.world.ids.get(one["name"], "none")
        near = (good.upper(), f"{good}%20", f"{good}/", f"{good}?", f"{good}#x")
        for strange in (*STRANGE_IDS, *near):
            for who in ("anonymous", "customer", "all"):
                target = op.target(**{one["name"]: strange})
                yield op.attack(f"{one['name']} is {strange[:40]!r}", who, target)
    for tail in ("/", "//", "/..", "/%2e%2e", "/.", ";x", "%00", "%3Fa=b", "/extra", "\\", "/\xe9"):
        target = op.target() + tail.encode("latin-1")
        yield op.attack(f"path with {tail!r}", target=target, bare=True)


def queries(op: Operation) -> Iterator[Attack]:
    parameters = [one["name"] for one in op.parameters("query")]
    for name in parameters:
        for value in STRANGE_VALUES:
            for who in ("customer", "all"):
                target = op.target(f"?{name}={quote(value, safe='%')}")
                yield op.attack(f"?{name}={value[:40]}", who, target)
        target = op.target(f"?{name}=1&{name}=2")
        yield op.attack(f"?{name} twice", target=target)
    for name, cursor in op.world.cursors.items():
        for spoiled_cursor in (cursor, cursor[:-1], cursor + "A", cursor[::-1], cursor.upper()):
            target = op.target(f"?cursor={spoiled_cursor}")
            yield op.attack(f"cursor of {name}", target=target)
    strict = bool(parameters)
    for query in ("?surprise=1", "?limit=1&surprise=1", "?LIMIT=1", "?offset=5", "?limit%00=1"):
        yield op.attack(query, target=op.target(query), refused=strict)
    for query in ("?", "?&", "?=", "?%", "?limit", "?" + "a=1&" * 3_000, "?a=%00", "?%ff", "?é"):
        yield op.attack(f"query {query[:20]}", target=op.target(query), bare=True)


def methods(world: World) -> Iterator[Attack]:
    """Methods that nobody asked for, on every path, and paths that nobody has."""
    paths = sorted({op.target() for op in operations(world)})
    elsewhere = (
        b"/", b"//", b"/nothing", b"/internal/inventory/reserve", b"/internal/", b"/docs/%2e%2e/x",
        b"/docs/..%2fpyproject.toml", b"/docs/nothing", b"/debug", b"/integrity", b"/admin",
        b"/.env", b"/%00", b"/%ff", b"/" + b"a" * 8_000, b"/users/../stats", b"/users%2Fme",
        b"//users/me", b"/USERS", b"/users/me/", b"/orders/", b"/.well-known/",
        b"/products/by-sku/",
        b"/products/by-sku/%2e%2e", b"/favicon.ico", b"/openapi.json/", b"/metrics/",
    )  # fmt: skip
    for target in (*paths, *elsewhere):
        for method in METHODS:
            for who in ("anonymous", "all"):
                wire = request(method, target, world.passport(who))
                yield Attack(f"{method.decode()} {target[:60]!r} as {who}", wire)
    for name, data in malformed_requests().items():
        yield Attack(f"on the wire: {name}", data, bare=True)
