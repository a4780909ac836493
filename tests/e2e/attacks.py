"""Generates hostile requests for every route of the OpenAPI document."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from markethall.payments.gateway.sandbox_webhooks import SandboxWebhooks
from tests.e2e.malformed_inputs import (
    FORM,
    JSON,
    MALFORMED_IDS,
    UNUSUAL_VALUES,
    invalid_forms,
    invalid_json,
    malformed_requests,
    unusual_headers,
    wrong_content_types,
)
from tests.e2e.raw_http import Header, request
from tests.e2e.schema_samples import HOSTILE, RAW, Path, Samples, with_value, without, wrong_type

MIB = 1024 * 1024
METHODS = (
    b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"PROPFIND",
    b"LINK", b"M-SEARCH", b"QUERY",
)  # fmt: skip


@dataclass(frozen=True)
class Attack:
    """One hostile HTTP request as bytes.

    If `must_be_rejected` is true, the response must be a 4xx. If `parser_may_answer` is true,
    uvicorn may respond without calling the application.
    """

    name: str
    data: bytes
    must_be_rejected: bool = False
    parser_may_answer: bool = False


@dataclass(frozen=True)
class AttackContext:
    """Data that the attacks use: the OpenAPI document, ids of existing entities, and tokens."""

    document: Mapping[str, Any]
    ids: Mapping[str, str]
    tokens: Mapping[str, str]
    forged: Sequence[tuple[str, bytes]]
    webhooks: SandboxWebhooks
    cursors: Mapping[str, str]

    def authorization(self, user: str) -> list[Header]:
        token = self.tokens.get(user)
        return [(b"Authorization", b"Bearer " + token.encode())] if token else []


@dataclass
class Operation:
    """One method of one path, with valid values for its parameters and body."""

    context: AttackContext
    method: str
    path: str
    spec: Mapping[str, Any]
    count: int = field(default=0)

    @property
    def requires_token(self) -> bool:
        security = self.spec.get("security", ())
        # an empty requirement means that the token is optional
        return bool(security) and {} not in security

    @property
    def media(self) -> str:
        return next(iter(self.spec.get("requestBody", {}).get("content", {})), "")

    @property
    def samples(self) -> Samples:
        return Samples(self.context.document, self.context.ids)

    @property
    def schema(self) -> Mapping[str, Any]:
        schema: Mapping[str, Any] = self.spec["requestBody"]["content"][self.media]["schema"]
        return schema

    def bodies(self) -> list[tuple[Any, Mapping[str, Any]]]:
        """Return a valid body for each accepted schema."""
        if not self.media:
            return []
        shapes = self.samples.branches(self.schema)
        return [(self.samples.sample(shape), shape) for shape in shapes]

    def parameters(self, location: str) -> list[Mapping[str, Any]]:
        return [
            parameter
            for parameter in self.spec.get("parameters", ())
            if parameter["in"] == location
        ]

    def target(self, query: str = "", **given: str) -> bytes:
        path = self.path
        for parameter in self.parameters("path"):
            value = given.get(parameter["name"], self.context.ids.get(parameter["name"], "none"))
            path = path.replace("{" + parameter["name"] + "}", value)
        return (path + query).encode("latin-1")

    def encode(self, value: Any) -> bytes:
        if self.media == FORM:
            return urlencode(value if isinstance(value, dict) else {"value": value}).encode()
        if self.media != JSON:  # an uploaded file
            return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
        return json.dumps(value).encode()

    def attack(
        self,
        name: str,
        user: str = "all",
        target: bytes | None = None,
        headers: tuple[Header, ...] = (),
        body: bytes | None = None,
        *,
        media: bytes | None = None,
        **expectations: bool,
    ) -> Attack:
        """Return a request that is valid except for the given parts.

        `user` is a key of `AttackContext.tokens`; for an unknown key the request has no token.
        """
        self.count += 1
        all_headers = [*self.context.authorization(user), *headers]
        names = {header.lower() for header, _ in headers}
        if body is None and self.bodies():
            body = self.encode(self.bodies()[0][0])
        if self.media and media is None and b"content-type" not in names:
            media = self.media.encode()
        if media:
            all_headers.append((b"Content-Type", media))
        if self.method == "POST" and b"idempotency-key" not in names:
            all_headers.append((b"Idempotency-Key", b"%s-%d" % (self.path.encode(), self.count)))
        if self.method == "PATCH" and b"if-match" not in names:
            # `*` accepts every version, so that no attack is rejected because of a version
            all_headers.append((b"If-Match", b"*"))
        path_and_query = self.target() if target is None else target
        data = request(self.method.encode(), path_and_query, all_headers, body)
        return Attack(f"{self.method} {self.path} as {user}: {name}", data, **expectations)


def operations(context: AttackContext) -> list[Operation]:
    methods = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
    return [
        Operation(context, method.upper(), path, spec)
        for path, specs in context.document["paths"].items()
        for method, spec in specs.items()
        if method in methods
    ]


def attacks(context: AttackContext) -> Iterator[Attack]:
    for operation in operations(context):
        for generate in (
            valid_requests,
            bodies,
            fields,
            framing,
            headers,
            tokens,
            ids,
            queries,
            webhooks,
        ):
            yield from generate(operation)
    yield from methods(context)


def valid_requests(op: Operation) -> Iterator[Attack]:
    """Yield a valid request without a token, and one of a disabled user."""
    yield op.attack("valid request", "anonymous", must_be_rejected=op.requires_token)
    yield op.attack("valid request", "disabled")


# Bodies


def bodies(op: Operation) -> Iterator[Attack]:
    if not op.media:
        yield op.attack("an unexpected body", media=JSON.encode(), body=b'{"a":1}')
        return
    good = op.encode(op.bodies()[0][0])
    malformed = invalid_json(good) if op.media == JSON else invalid_forms(good)
    for name, body in malformed.items():
        for user in ("anonymous", "customer", "all"):
            yield op.attack(name, user, body=body, must_be_rejected=op.media == JSON)
    small = op.media in {JSON, FORM}
    large = good + b" " * (MIB + 1 - len(good))
    yield op.attack("1 MiB and one byte", body=large, must_be_rejected=small)
    yield op.attack("exactly 1 MiB", body=good + b" " * (MIB - len(good)))
    for media in wrong_content_types(op.media):
        yield op.attack(f"sent as {media[:40]!r}", media=media, must_be_rejected=True)
    yield op.attack("no content type", media=b"", body=good, must_be_rejected=True)


def fields(op: Operation) -> Iterator[Attack]:
    """Yield bodies in which one value is hostile, or one required field is missing."""
    for good, schema in op.bodies():
        for position in op.samples.positions(schema, good):
            name = "/".join(map(str, position.path))
            for value in HOSTILE:
                wrong = op.media == JSON and wrong_type(position, value)
                body = op.encode(_encodable(op, with_value(good, position.path, value)))
                yield op.attack(f"/{name} is {value!r:.40}", body=body, must_be_rejected=wrong)
            if op.media == JSON:
                yield from _raw_json_values(op, good, position.path, name)
        for name in schema.get("required", ()) if isinstance(good, dict) else ():
            body = op.encode(without(good, name))
            yield op.attack(f"without {name}", body=body, must_be_rejected=op.media == JSON)


def _encodable(op: Operation, value: Any) -> Any:
    """Return the value in a form that `encode` accepts.

    Values of forms and files become UTF-8 bytes, in which `?` replaces each lone surrogate.
    """
    if op.media != FORM or not isinstance(value, dict):
        return value if op.media == JSON else str(value).encode("utf-8", "replace")
    return {name: str(item).encode("utf-8", "replace") for name, item in value.items()}


def _raw_json_values(op: Operation, good: Any, path: Any, name: str) -> Iterator[Attack]:
    template = json.dumps(with_value(good, path, "@RAW@"))
    for text in RAW:
        body = template.replace('"@RAW@"', text).encode()
        # two of the texts can give a valid body: "-0" is a number, and "" as the only item of a
        # list gives `[]`
        fits = text == "-0" or (not text and path[-1:] == (0,))
        yield op.attack(f"/{name} is {text[:20]}", body=body, must_be_rejected=not fits)


def framing(op: Operation) -> Iterator[Attack]:
    """Yield bodies with an unusual, wrong or missing length."""
    if not op.media:
        return
    good = op.encode(op.bodies()[0][0])
    chunked: Header = (b"Transfer-Encoding", b"chunked")
    chunked_body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(good), good)
    yield op.attack("chunked", headers=(chunked,), body=chunked_body)
    byte_chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in good) + b"0\r\n\r\n"
    yield op.attack("chunked byte by byte", headers=(chunked,), body=byte_chunks)
    large = b"100000\r\n" + b" " * MIB + b"\r\n" + chunked_body
    small = op.media in {JSON, FORM}
    yield op.attack(
        "chunked, 1 MiB and more", headers=(chunked,), body=large, must_be_rejected=small
    )
    for name, length in {
        "negative": b"-1", "text": b"many", "float": b"1.5", "hex": b"0x10", "plus": b"+5",
        "empty": b"", "list": b"5, 5", "arabic": "٣".encode(), "2**64": b"%d" % 2**64,
    }.items():  # fmt: skip
        header = (b"Content-Length", length)
        yield op.attack(
            f"length {name}",
            headers=(header,),
            body=good,
            must_be_rejected=True,
            parser_may_answer=True,
        )
    two = ((b"Content-Length", b"5"), (b"Content-Length", b"6"))
    yield op.attack(
        "two lengths", headers=two, body=good, must_be_rejected=True, parser_may_answer=True
    )
    both = ((b"Content-Length", b"5"), chunked)
    yield op.attack(
        "length and chunks",
        headers=both,
        body=chunked_body,
        must_be_rejected=True,
        parser_may_answer=True,
    )
    bad = {"size": b"zz\r\n", "overflow": b"f" * 20 + b"\r\n", "end": b"5\r\nabc"}
    for name, chunks in bad.items():
        body = chunks + b"\r\n\r\n" * 3
        yield op.attack(
            f"bad chunk {name}",
            headers=(chunked,),
            body=body,
            must_be_rejected=True,
            parser_may_answer=True,
        )


# Headers


def headers(op: Operation) -> Iterator[Attack]:
    long = b"x" * 20_000
    for name, value in unusual_headers(long):
        yield op.attack(f"{name.decode()}: {value[:40]!r}", headers=((name, value),))
    bad_keys = (b"a" * 256, b"a b", "schlüssel".encode(), b"\xff", b'"open', b'"', b'""', b"a\tb")
    for value in bad_keys:
        must_be_rejected = op.method == "POST" and "key" in str(
            op.spec.get("responses", {}).get("400", "")
        )
        key = (b"Idempotency-Key", value)
        yield op.attack(f"key {value[:20]!r}", headers=(key,), must_be_rejected=must_be_rejected)
    for value in (b"**", b"v1", b'"v1', b'"v' + b"9" * 20 + b'"', b'W/"v1"', b'*, "v1"', b"\xff"):
        tag = (b"If-Match", value)
        yield op.attack(
            f"If-Match {value!r}", headers=(tag,), must_be_rejected=op.method == "PATCH"
        )
    many = tuple((b"X-%d" % number, b"y") for number in range(2_000))
    yield op.attack("2000 headers", headers=many, parser_may_answer=True)
    large = (b"X-Long", b"x" * 64_000)
    yield op.attack(
        "64 kB of headers", headers=(large,), must_be_rejected=True, parser_may_answer=True
    )
    bad_lines = {"break": b"X-A: b\nX-C", "no name": b"", "space": b"a b", "NUL": b"a\x00b"}
    for fault, line in bad_lines.items():
        yield op.attack(f"header with {fault}", headers=((line, b"x"),), parser_may_answer=True)
    yield op.attack("NUL in a value", headers=((b"X-A", b"a\x00b"),), parser_may_answer=True)


def tokens(op: Operation) -> Iterator[Attack]:
    """Yield forged tokens, which protected routes must reject."""
    for name, token in op.context.forged:
        bearer = (b"Authorization", b"Bearer " + token)
        too_long = len(token) > 32 * 1024
        yield op.attack(
            f"token {name}",
            "anonymous",
            headers=(bearer,),
            must_be_rejected=op.requires_token,
            parser_may_answer=too_long,
        )
    good = op.context.tokens["all"].encode()
    for value in (b"", b"Bearer", b"Basic YTpi", b"Token " + good, good, b"bearer\tx", b"\xff"):
        header = (b"Authorization", value)
        yield op.attack(
            f"Authorization {value[:10]!r}",
            "anonymous",
            headers=(header,),
            must_be_rejected=op.requires_token,
        )
    two = ((b"Authorization", b"Bearer garbage"), (b"Authorization", b"Bearer " + good))
    yield op.attack("two tokens", "anonymous", headers=two)


def webhooks(op: Operation) -> Iterator[Attack]:
    """Yield webhooks with a valid signature and a hostile payload."""
    if "webhooks" not in op.path:
        return
    event = {"event_id": "evt_hostile", "type": "charge.succeeded", "created": 1, "data": CHARGE}
    inner = [("data", name) for name in CHARGE]
    positions: list[Path] = [("event_id",), ("type",), ("created",), ("data",), *inner]
    for position in positions:
        for value in HOSTILE:
            body = op.encode(with_value(event, position, value))
            yield _signed(op, f"signed, {'/'.join(map(str, position))} is {value!r:.40}", body)
    for name, body in invalid_json(op.encode(event)).items():
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
        yield op.attack(
            f"signature {stamp!r}", headers=((SIGNATURE, stamp),), must_be_rejected=True
        )


CHARGE = {
    "operation_id": "01890000-0000-7000-8000-000000000000",
    "reference": "ch_1",
    "failure_code": "card_declined",
    "next_action": "https://sandbox.example/",
}
SIGNATURE = b"Sandbox-Signature"


def _signed(op: Operation, name: str, body: bytes) -> Attack:
    signature = op.context.webhooks.compute_signature(body, datetime.now(UTC)).encode()
    return op.attack(name, "anonymous", headers=((SIGNATURE, signature),), body=body)


# Paths and queries


def ids(op: Operation) -> Iterator[Attack]:
    """Yield paths with malformed ids, and paths with unexpected text at the end."""
    for parameter in op.parameters("path"):
        good = op.context.ids.get(parameter["name"], "none")
        similar = (good.upper(), f"{good}%20", f"{good}/", f"{good}?", f"{good}#x")
        for malformed_id in (*MALFORMED_IDS, *similar):
            for user in ("anonymous", "customer", "all"):
                target = op.target(**{parameter["name"]: malformed_id})
                yield op.attack(f"{parameter['name']} is {malformed_id[:40]!r}", user, target)
    for tail in ("/", "//", "/..", "/%2e%2e", "/.", ";x", "%00", "%3Fa=b", "/extra", "\\", "/\xe9"):
        target = op.target() + tail.encode("latin-1")
        yield op.attack(f"path with {tail!r}", target=target, parser_may_answer=True)


def queries(op: Operation) -> Iterator[Attack]:
    parameters = [parameter["name"] for parameter in op.parameters("query")]
    for name in parameters:
        for value in UNUSUAL_VALUES:
            for user in ("customer", "all"):
                target = op.target(f"?{name}={quote(value, safe='%')}")
                yield op.attack(f"?{name}={value[:40]}", user, target)
        target = op.target(f"?{name}=1&{name}=2")
        yield op.attack(f"?{name} twice", target=target)
    for name, cursor in op.context.cursors.items():
        for changed_cursor in (cursor, cursor[:-1], cursor + "A", cursor[::-1], cursor.upper()):
            target = op.target(f"?cursor={changed_cursor}")
            yield op.attack(f"cursor of {name}", target=target)
    strict = bool(parameters)
    for query in ("?surprise=1", "?limit=1&surprise=1", "?LIMIT=1", "?offset=5", "?limit%00=1"):
        yield op.attack(query, target=op.target(query), must_be_rejected=strict)
    for query in ("?", "?&", "?=", "?%", "?limit", "?" + "a=1&" * 3_000, "?a=%00", "?%ff", "?é"):
        yield op.attack(f"query {query[:20]}", target=op.target(query), parser_may_answer=True)


def methods(context: AttackContext) -> Iterator[Attack]:
    """Yield unsupported methods on every path, and unknown paths."""
    paths = sorted({op.target() for op in operations(context)})
    unknown_paths = (
        b"/", b"//", b"/nothing", b"/internal/inventory/reserve", b"/internal/", b"/docs/%2e%2e/x",
        b"/docs/..%2fpyproject.toml", b"/docs/nothing", b"/debug", b"/integrity", b"/admin",
        b"/.env", b"/%00", b"/%ff", b"/" + b"a" * 8_000, b"/users/../stats", b"/users%2Fme",
        b"//users/me", b"/USERS", b"/users/me/", b"/orders/", b"/.well-known/",
        b"/products/by-sku/",
        b"/products/by-sku/%2e%2e", b"/favicon.ico", b"/openapi.json/", b"/metrics/",
    )  # fmt: skip
    for target in (*paths, *unknown_paths):
        for method in METHODS:
            for user in ("anonymous", "all"):
                data = request(method, target, context.authorization(user))
                yield Attack(f"{method.decode()} {target[:60]!r} as {user}", data)
    for name, data in malformed_requests().items():
        yield Attack(f"malformed request: {name}", data, parser_may_answer=True)
