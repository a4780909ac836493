"""Who runs where, said to people: for `markethall topology`, the start banner and /debug."""

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from markethall.settings import Settings
from markethall.topology import CALLERS, Context


@dataclass(frozen=True)
class Place:
    """One context: `here` with what it stores in, else the address that it is called at."""

    context: Context
    here: bool
    at: str


@dataclass(frozen=True)
class Way:
    """What carries the calls, or the events, from one context to another."""

    source: Context
    target: Context
    what: str
    by: str


def places(settings: Settings) -> list[Place]:
    return [
        Place(context, context in settings.serve, _at(settings, context)) for context in Context
    ]


def ways(settings: Settings) -> list[Way]:
    """Those that begin or end in this process."""
    return [*_calls(settings), *_events(settings)]


def _calls(settings: Settings) -> list[Way]:
    return [
        Way(caller, target, "calls", _carrier(settings, caller, target))
        for target, methods in CALLERS.items()
        for caller in sorted(frozenset().union(*methods.values()))
        if {caller, target} & settings.serve
    ]


def _carrier(settings: Settings, caller: Context, target: Context) -> str:
    if {caller, target} <= settings.serve:
        return "in process"
    return "over HTTP"


def _events(settings: Settings) -> list[Way]:
    return [
        Way(publisher, listener, "events", _pipe(settings, publisher, listener))
        for publisher, listener in settings.flows
        if {publisher, listener} & settings.serve
    ]


def _pipe(settings: Settings, publisher: Context, listener: Context) -> str:
    direct, streamed = settings.pipes(publisher, listener)
    if direct and streamed:
        return "directly and by Redis Streams"
    return "directly" if direct else "by Redis Streams"


def _at(settings: Settings, context: Context) -> str:
    if context not in settings.serve:
        return settings.remotes.get(context, "not known here")
    if settings.storage == "memory":
        return "memory"
    return _database(settings.database_of(context))


def _database(url: str) -> str:
    """Host and name: never the user, never the password."""
    if not url:
        return "embedded Postgres"
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"Postgres {parts.hostname or 'local'}{port}{parts.path}"


def wrong_addresses(settings: Settings, host: str, port: int) -> list[str]:
    """Remotes that cannot be right: this process itself, or a name that nobody knows.

    Nobody is called: a neighbour may well start after us.
    """
    wrong = []
    for context, url in sorted(settings.remotes.items()):
        if not (found := _resolved(url)):
            wrong.append(f"MARKETHALL_REMOTES: {context}: no such host: {urlsplit(url).hostname}")
        elif _port(url) == port and found & _own(host):
            wrong.append(f"MARKETHALL_REMOTES: {context}: {url} is this process itself")
    return wrong


def _resolved(url: str) -> set[str]:
    """The addresses of its host; none for a name that cannot be found."""
    try:
        found = socket.getaddrinfo(urlsplit(url).hostname, _port(url), type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {str(address[0]) for *_, address in found}


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def _own(host: str) -> set[str]:
    """The addresses that lead to a process listening there. 0.0.0.0 listens on all of them."""
    if not ipaddress.ip_address(socket.gethostbyname(host)).is_unspecified:
        return _resolved(f"http://{host}")
    mine = _resolved(f"http://{socket.gethostname()}")
    return mine | {"127.0.0.1", "::1", "0.0.0.0"}  # noqa: S104 - compared, not listened on
