"""Hostile requests, made for every route that the hall's own document names."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from tests.e2e.raw import Header, request
from tests.e2e.schemas import HOSTILE, RAW, Samples, spoiled, without, wrong_type

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
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
        return json.dumps(value).encode()

    def attack(  # noqa: PLR0913 - a request has that many parts
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
            sent.append((b"If-Match", b'"v1"'))
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
        for kind in (plain, bodies, fields, framing, headers, tokens, ids, queries):
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
    nonsense = _json_nonsense(good) if op.media == JSON else _form_nonsense(good)
    for name, body in nonsense.items():
        for who in ("anonymous", "customer", "all"):
            yield op.attack(name, who, body=body, refused=op.media == JSON)
    yield op.attack("1 MiB and one byte", body=good + b" " * (MIB + 1 - len(good)), refused=True)
    yield op.attack("exactly 1 MiB", body=good + b" " * (MIB - len(good)))
    for media in _wrong_media(op.media):
        yield op.attack(f"sent as {media[:40]!r}", media=media, refused=True)
    yield op.attack("no content type", media=b"", body=good, refused=True)


def _json_nonsense(good: bytes) -> dict[str, bytes]:
    first = good.partition(b",")[0].lstrip(b"{").rstrip(b"}")
    deep = 100_000
    return {
        "empty": b"", "null": b"null", "list": b"[]", "list of null": b"[null]", "one": b"1",
        "text": b'"x"', "true": b"true", "open": b"{", "close": b"}", "crossed": b"{]",
        "quotes": b"{'a':1}", "comma": b'{"a":1,}', "NaN": b'{"a":NaN}', "inf": b'{"a":-Infinity}',
        "comment": b"{/**/}", "5000 digits": b'{"a":' + b"9" * 5000 + b"}",
        "raw NUL": b'{"a":"\x00"}', "NUL": b'{"a":"\\u0000"}', "NUL name": b'{"\\u0000":1}',
        "surrogate": b'{"a":"\\ud800"}', "surrogate name": b'{"\\ud800":1}',
        "half escape": b'{"a":"\\u12"}', "not UTF-8": b'{"a":"\xff\xfe"}', "cut": b'{"a":"\xc3',
        "overlong": b'{"a":"\xc0\xaf"}', "CESU": b'{"a":"\xed\xa0\x80"}',
        "UTF-16": good.decode().encode("utf-16"), "UTF-32": good.decode().encode("utf-32"),
        "BOM": b"\xef\xbb\xbf" + good, "twice": good + good, "tail": good + b"x",
        "a name twice": b"{" + first + b"," + good[1:],
        "65 lists": b"[" * 65 + b"]" * 65, "65 objects": b'{"a":' * 65 + b"1" + b"}" * 65,
        "65 in a field": b'{"lines":' + b"[" * 65 + b"]" * 65 + b"}",
        "100000 lists": b"[" * deep + b"]" * deep, "100000 open": b"[" * deep,
        "100000 objects": b'{"a":' * deep + b"1" + b"}" * deep,
        "unknown field": good[:-1] + b',"surprise":1}', "prototype": b'{"__proto__":{"a":1}}',
        "50000 fields": b"{" + b",".join(b'"f%d":%d' % (n, n) for n in range(50_000)) + b"}",
        "a form": b"a=1&b=2", "multipart": b"--x\r\ncontent-disposition: form-data\r\n\r\n1\r\n--x--",
        "XML": b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a/>",
    }  # fmt: skip


def _form_nonsense(good: bytes) -> dict[str, bytes]:
    return {
        "empty": b"", "JSON": b'{"username":"a","password":"b"}', "ampersands": b"&" * 10_000,
        "twice": good + b"&" + good, "one name": b"username", "no value": b"username=&password=",
        "NUL": b"username=%00&password=%00", "raw NUL": b"username=\x00&password=\x00",
        "not UTF-8": b"username=%ff%fe&password=%c3", "surrogate": b"username=%ED%A0%80&password=x",
        "raw bytes": b"username=\xff\xfe&password=\xfd", "bad escape": b"username=%zz&password=%",
        "100000 fields": b"&".join(b"f%d=1" % number for number in range(100_000)),
        "long name": b"username=" + b"a" * 500_000 + b"&password=x",
        "long password": b"username=a&password=" + b"a" * 500_000,
        "other grant": b"grant_type=client_credentials&scope=users:manage",
        "refresh garbage": b"grant_type=refresh_token&refresh_token=%00%ff" + b"A" * 150,
        "brackets": b"username[]=a&password[0]=b", "semicolons": b"username=a;password=b",
        "MFA": b"grant_type=password&username[$ne]=x&password[$ne]=x",
    }  # fmt: skip


def _wrong_media(good: str) -> list[bytes]:
    other = FORM if good == JSON else JSON
    return [
        b"text/plain", other.encode(), b"multipart/form-data; boundary=x", b"application/xml",
        b"multipart/form-data", good.encode() + b"; charset=utf-16", good.encode() + b"; charset=",
        b";;;", b"application/", b"*/*", good.encode() + b", text/html", b"\xff\xfe",
        good.encode() + b"; a=" + b"x" * 5_000, b"application/json-patch",
    ]  # fmt: skip


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
        yield op.attack(f"/{name} is {text[:20]}", body=body, refused=text != "-0")


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
    yield op.attack("chunked, 1 MiB and more", headers=(chunked,), body=large, refused=True)
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
    for name, chunks in {"size": b"zz\r\n", "overflow": b"f" * 20 + b"\r\n", "end": b"5\r\nabc"}.items():
        body = chunks + b"\r\n\r\n" * 3
        yield op.attack(f"bad chunk {name}", headers=(chunked,), body=body, refused=True, bare=True)


# Heads


def headers(op: Operation) -> Iterator[Attack]:
    long = b"x" * 20_000
    for name, value in _strange_headers(long):
        yield op.attack(f"{name.decode()}: {value[:40]!r}", headers=((name, value),))
    for value in (b"a" * 256, b"a b", "schlüssel".encode(), b"\xff", b'"open', b'"', b'""', b"a\tb"):
        refused = op.method == "POST" and "key" in str(op.spec.get("responses", {}).get("400", ""))
        key = (b"Idempotency-Key", value)
        yield op.attack(f"key {value[:20]!r}", headers=(key,), refused=refused)
    for value in (b"*", b"v1", b'"v1', b'"v99999999999999999999"', b'W/"v1"', b'"v1", "v2"', b"\xff"):
        yield op.attack(f"If-Match {value!r}", headers=((b"If-Match", value),), refused=op.method == "PATCH")
    many = tuple((b"X-%d" % number, b"y") for number in range(2_000))
    yield op.attack("2000 headers", headers=many, bare=True)
    yield op.attack("64 kB of headers", headers=((b"X-Long", b"x" * 64_000),), refused=True, bare=True)
    for name, line in {"break": b"X-A: b\nX-C", "no name": b"", "space": b"a b", "NUL": b"a\x00b"}.items():
        yield op.attack(f"header with {name}", headers=((line, b"x"),), bare=True)
    yield op.attack("NUL in a value", headers=((b"X-A", b"a\x00b"),), bare=True)


def _strange_headers(long: bytes) -> list[Header]:
    return [
        (b"X-Request-ID", b"short"), (b"X-Request-ID", long), (b"X-Request-ID", b"a b;<script>"),
        (b"X-Request-ID", b"\xff\xfe" * 8), (b"X-Request-ID", b'"}\\u000a{"evil":1'),
        (b"traceparent", b"garbage"), (b"traceparent", long), (b"traceparent", b"\xff" * 55),
        (b"traceparent", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"),
        (b"traceparent", b"ff-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01-more"),
        (b"X-Forwarded-For", b"1.2.3.4, ::1, garbage"), (b"X-Forwarded-For", b"\xff"),
        (b"Forwarded", b"for=evil;proto=gopher"), (b"X-Forwarded-Proto", b"gopher"),
        (b"Host", b"evil.example"), (b"Host", b"\xff"), (b"Host", long), (b"Cookie", long),
        (b"User-Agent", b"\xff\xfe\r\tx"[:2] + b"' OR 1=1"), (b"User-Agent", long),
        (b"Accept", b"\xff"), (b"Accept", b"application/xml"), (b"Accept-Encoding", b"gzip;q=NaN"),
        (b"Content-Encoding", b"gzip"), (b"Expect", b"200-maybe"), (b"Range", b"bytes=-1-,0-9,9-0"),
        (b"If-None-Match", b"*"), (b"If-None-Match", long), (b"If-None-Match", b'"\xff'),
        (b"If-Modified-Since", b"yesterday"), (b"Origin", b"null"), (b"Max-Forwards", b"-1"),
        (b"X-HTTP-Method-Override", b"DELETE"), (b"X-Original-URL", b"/stats"),
        (b"Upgrade", b"h2c"), (b"Upgrade", b"websocket"), (b"TE", b"trailers, chunked;q=x"),
    ]  # fmt: skip


def tokens(op: Operation) -> Iterator[Attack]:
    """A forged token is as good as none, where one is needed."""
    for name, token in op.world.forged:
        bearer = (b"Authorization", b"Bearer " + token)
        too_long = len(token) > 32 * 1024
        yield op.attack(
            f"token {name}", "anonymous", headers=(bearer,), refused=op.guarded, bare=too_long
        )
    good = op.world.tokens["all"].encode()
    for value in (b"", b"Bearer", b"Basic YTpi", b"Token " + good, good, b"bearer\t" + b"x", b"\xff"):
        header = (b"Authorization", value)
        yield op.attack(
            f"Authorization {value[:10]!r}", "anonymous", headers=(header,), refused=op.guarded
        )
    two = ((b"Authorization", b"Bearer garbage"), (b"Authorization", b"Bearer " + good))
    yield op.attack("two tokens", "anonymous", headers=two)


# Addresses


STRANGE_IDS = (
    "", "x", "0", "-1", "null", "undefined", "%2e%2e%2f", "..%2F..%2Fetc%2Fpasswd", "a%2Fb", "%00",
    "a%00b", "%ff", "%C0%AF", "%ED%A0%80", "%", "%zz", "%25", "%250a", "%0d%0aX-Evil:%201", "*",
    "'%20OR%20'1'='1", "1;DROP%20TABLE%20users", "{}", "[]", "%F0%9F%98%80", "a" * 7_000,
    "{01890000-0000-7000-8000-000000000000}", "urn:uuid:01890000-0000-7000-8000-000000000000",
    "01890000000070008000000000000000", "01890000-0000-7000-8000-00000000000g",
    "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "01890000-0000-7000-8000-0000000000001", "%EF%BC%90" * 36, ";a=b", "me;x", "~", "%7Emh",
)  # fmt: skip


def ids(op: Operation) -> Iterator[Attack]:
    """What stands where an id is due."""
    for one in op.parameters("path"):
        good = op.world.ids.get(one["name"], "none")
        for strange in (*STRANGE_IDS, good.upper(), f"{good}%20", f"{good}/", f"{good}?", f"{good}#x"):
            for who in ("anonymous", "customer", "all"):
                target = op.target(**{one["name"]: strange})
                yield op.attack(f"{one['name']} is {strange[:40]!r}", who, target)
    for tail in ("/", "//", "/..", "/%2e%2e", "/.", ";x", "%00", "%3Fa=b", "/extra", "\\", "/\xe9"):
        target = op.target() + tail.encode("latin-1")
        yield op.attack(f"path with {tail!r}", target=target, bare=True)


STRANGE_VALUES = (
    "", "0", "-1", "1", "101", "1e9", "1.0", "x", "NaN", "9" * 30, "%2B5", "0x10", "٣", "true", "null",
    "%00", "%ff", "%ED%A0%80", "a" * 1_500, "name;DROP%20TABLE%20product", "price%20desc",
    "-created_at,name", "--", "'", "%27%20OR%201=1--", "%25", "%5C", "_", "%E2%80%AE", "%F0%9F%98%80",
    "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00%2B23:59", "infinity", "2026-13-45",
    "2026-01-01", "2026-01-01T00:00:00", "1", "99999999999", "MH-99999999999999999999", "MH-",
    "MH-%D9%A3", "%7Bx%7D", "00000000-0000-0000-0000-000000000000", "EUR", "a%26b=c",
)  # fmt: skip


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
        b"/docs/..%2fpyproject.toml", b"/docs/nothing", b"/debug", b"/integrity", b"/admin", b"/.env",
        b"/%00", b"/%ff", b"/" + b"a" * 8_000, b"/users/../stats", b"/users%2Fme", b"//users/me",
        b"/USERS", b"/users/me/", b"/orders/", b"/.well-known/", b"/products/by-sku/",
        b"/products/by-sku/%2e%2e", b"/favicon.ico", b"/openapi.json/", b"/metrics/",
    )  # fmt: skip
    for target in (*paths, *elsewhere):
        for method in METHODS:
            for who in ("anonymous", "all"):
                wire = request(method, target, world.passport(who))
                yield Attack(f"{method.decode()} {target[:60]!r} as {who}", wire)
    for name, data in _unreadable().items():
        yield Attack(f"on the wire: {name}", data, bare=True)


def _unreadable() -> dict[str, bytes]:
    """What is hardly HTTP at all."""
    end = b" HTTP/1.1\r\nHost: hall\r\nConnection: close\r\n\r\n"
    return {
        "nothing": b"\r\n\r\n\r\n\r\n", "noise": bytes(range(256)) * 4 + b"\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200 + b"\r\n\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/9": b"GET / HTTP/9.9\r\n\r\n",
        "no version": b"GET /\r\n\r\n", "HTTP/1.0": b"GET /stats HTTP/1.0\r\n\r\n",
        "lower case": b"get /" + end, "no method": b" /" + end, "evil method": b"EVIL /" + end,
        "no target": b"GET" + end, "spaces": b"GET  /  x" + end, "star": b"OPTIONS *" + end,
        "star for GET": b"GET *" + end, "no slash": b"GET users" + end,
        "absolute": b"GET http://evil.example/stats" + end, "proxy": b"CONNECT evil.example:443" + end,
        "absolute, no path": b"GET http://evil.example" + end, "empty query": b"GET ?" + end,
        "raw bytes": b"GET /\xff\xfe" + end, "UTF-8": "GET /é".encode() + end,
        "NUL": b"GET /\x00" + end, "tab": b"GET\t/\tHTTP/1.1\r\n\r\n", "fragment": b"GET /users#x" + end,
        "no host": b"GET /stats HTTP/1.1\r\nConnection: close\r\n\r\n",
        "two hosts": b"GET /stats HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
        "long target": b"GET /" + b"a" * 100_000 + end, "pipelined": (b"GET /health" + end) * 3,
        "smuggled": b"POST /users HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n"
        b"Content-Length: 4\r\nConnection: close\r\n\r\n0\r\n\r\n",
    }  # fmt: skip
