"""Describes the topology for `markethall topology`, the start banner and /debug."""

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from markethall.contexts import context_names, topology
from markethall.settings import Settings


@dataclass(frozen=True)
class ContextLocation:
    """A context, with its storage if this process serves it, otherwise with its URL."""

    context: str
    is_local: bool
    location: str


@dataclass(frozen=True)
class Route:
    """The transport of calls or events from one context to another."""

    source: str
    target: str
    kind: str
    transport: str


def context_locations(settings: Settings) -> list[ContextLocation]:
    return [
        ContextLocation(context, context in settings.contexts, _location_of(settings, context))
        for context in context_names()
    ]


def describe_routes(settings: Settings) -> list[Route]:
    """Return the routes that begin or end in this process."""
    calls = [
        Route(
            caller,
            target,
            "calls",
            "in process" if {caller, target} <= settings.contexts else "over HTTP",
        )
        for target, methods in topology().allowed_calls.items()
        for caller in sorted(frozenset().union(*methods.values()))
        if {caller, target} & settings.contexts
    ]
    events = [
        Route(publisher, subscriber, "events", _event_transport(settings, publisher, subscriber))
        for publisher, subscriber in topology().event_pairs
        if {publisher, subscriber} & settings.contexts
    ]
    return calls + events


def _event_transport(settings: Settings, publisher: str, subscriber: str) -> str:
    is_in_process, is_streamed = settings.event_transports(publisher, subscriber)
    if is_in_process and is_streamed:
        return "directly and by Redis Streams"
    return "directly" if is_in_process else "by Redis Streams"


def _location_of(settings: Settings, context: str) -> str:
    if context not in settings.contexts:
        return settings.context_urls.get(context, "not known here")
    if settings.storage == "memory":
        return "memory"
    return _describe_database(settings.database_url_of(context))


def _describe_database(url: str) -> str:
    """Return host, port and database name of a URL, without user and password."""
    if not url:
        return "embedded Postgres"
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"Postgres {parts.hostname or 'local'}{port}{parts.path}"


def invalid_remote_urls(settings: Settings, host: str, port: int) -> list[str]:
    """Return the problems of MARKETHALL_CONTEXT_URLS: unknown hosts, and URLs of this process.

    The URLs are not requested, because the other process may start later.
    """
    problems = []
    for context, url in sorted(settings.context_urls.items()):
        if not (addresses := _resolve(url)):
            problems.append(
                f"MARKETHALL_CONTEXT_URLS: {context}: no such host: {urlsplit(url).hostname}"
            )
        elif _port(url) == port and addresses & _own_addresses(host):
            problems.append(f"MARKETHALL_CONTEXT_URLS: {context}: {url} is this process itself")
    return problems


def _resolve(url: str) -> set[str]:
    """Return the IP addresses of the host; empty if it cannot be resolved."""
    try:
        addresses = socket.getaddrinfo(urlsplit(url).hostname, _port(url), type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {str(address[0]) for *_, address in addresses}


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def _own_addresses(host: str) -> set[str]:
    """Return the IP addresses of a process that listens on this host; 0.0.0.0 means all."""
    if not ipaddress.ip_address(socket.gethostbyname(host)).is_unspecified:
        return _resolve(f"http://{host}")
    addresses = _resolve(f"http://{socket.gethostname()}")
    return addresses | {"127.0.0.1", "::1", "0.0.0.0"}  # noqa: S104 - compared, not listened on
