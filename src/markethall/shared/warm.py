"""Answers that are ready to send, for as long as the cache keeps what they were made of.

A public read that is asked for again and again costs less here than finding its route does. An
answer is kept by the very address that was asked for, and is good only while the cache still has
the same bytes: so whatever forgets those, or lets them grow old, ends the answer as well.
"""

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from markethall.shared.http import matches

Scope = MutableMapping[str, Any]
Header = tuple[bytes, bytes]
Address = tuple[str, bytes]  # path and query string

_MOST_BYTES: Final = 32 * 1024 * 1024
_AROUND: Final = 2048


@dataclass(frozen=True)
class Held:
    """Where the cache holds what an answer was made of."""

    space: str
    key: str
    value: bytes


class Peek(Protocol):
    def peek(self, space: str, key: str) -> bytes | None:
        """What can be had without waiting, while nobody has to renew it."""


def written(headers: Sequence[Header]) -> bytes:
    """As lines of HTTP/1.1."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


class Ready:
    """A public answer of 200, and the 304 in its stead. `etag` is quoted."""

    __slots__ = ("body", "etag", "head", "held", "lines", "route", "unchanged", "unchanged_lines")

    def __init__(
        self, held: Held, route: str, body: bytes, etag: str, cache_control: bytes
    ) -> None:
        self.held = held
        self.route = route
        self.etag = etag
        self.body = body
        self.unchanged: list[Header] = [
            (b"etag", etag.encode()),
            (b"cache-control", cache_control),
        ]
        self.head: list[Header] = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
            *self.unchanged,
        ]
        self.lines = b"HTTP/1.1 200 OK\r\n" + written(self.head)
        self.unchanged_lines = b"HTTP/1.1 304 Not Modified\r\n" + written(self.unchanged)

    def is_known_by(self, if_none_match: bytes | None) -> bool:
        """Whether 304 is the answer (RFC 9110, section 13.1.2)."""
        return if_none_match is not None and matches(if_none_match.decode("latin-1"), self.etag)

    def weight(self, address: Address) -> int:
        """Bytes, about: the body, what it was made of, and all that is small around it."""
        return 2 * len(self.body) + len(address[0]) + len(address[1]) + _AROUND


class Warm:
    """At most so many bytes of them; when that is reached it begins anew."""

    def __init__(self, cache: Peek, most_bytes: int = _MOST_BYTES) -> None:
        self._cache = cache
        self._most_bytes = most_bytes
        self._ready: dict[Address, Ready] = {}
        self._bytes = 0

    def find(self, scope: Scope) -> Ready | None:
        """For a GET; the caller sees to it that the answer is for everybody."""
        return self.at((scope["path"], scope["query_string"]))

    def at(self, address: Address) -> Ready | None:
        ready = self._ready.get(address)
        if ready is None:
            return None
        if self.holds(ready.held):
            return ready
        self._drop(address)
        return None

    def holds(self, held: Held) -> bool:
        """Whether the cache still has the very bytes; with no cache it never has."""
        return self._cache.peek(held.space, held.key) is held.value

    def keep(self, scope: Scope, ready: Ready) -> None:
        address = (scope["path"], scope["query_string"])
        self._drop(address)
        weight = ready.weight(address)
        if self._bytes + weight > self._most_bytes:
            self._ready.clear()
            self._bytes = 0
        self._ready[address] = ready
        self._bytes += weight

    def _drop(self, address: Address) -> None:
        ready = self._ready.pop(address, None)
        if ready is not None:
            self._bytes -= ready.weight(address)


def is_anonymous(headers: Sequence[Header]) -> bool:
    return not any(name == b"authorization" for name, _ in headers)
