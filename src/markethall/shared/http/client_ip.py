"""The client address behind trusted proxies."""

import re
from collections.abc import Iterator
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from starlette.types import Scope

Networks = tuple[IPv4Network | IPv6Network, ...]


# a node of RFC 7239, section 6: an address with a port, or an IPv6 address in brackets
_NODE_WITH_PORT: Final = re.compile(
    r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9.]{7,15}))(?::(?:[0-9]{1,5}|_[\w.-]{1,100}))?", re.ASCII
)


def client_ip(scope: Scope, proxies: Networks) -> str:
    """Return the address of the client, which is the peer unless the peer is a trusted proxy.

    Behind a trusted proxy, the client is the rightmost forwarded address that is not a trusted
    proxy. The addresses are read from X-Forwarded-For; if this header is missing, from Forwarded
    (RFC 7239). If an entry contains no address, such as `unknown`, the proxy that added the entry
    counts as the client.
    """
    peer: str = scope["client"][0] if scope.get("client") else ""
    if not proxies or not _is_in_any_network(peer, proxies):
        return peer
    for node in _forwarded_nodes(scope):
        address = _address_of(node)
        if address is None:
            break
        peer = address
        if not _is_in_any_network(address, proxies):
            break
    return peer


def _forwarded_nodes(scope: Scope) -> Iterator[str]:
    """Yield the nodes from right to left: the node of the nearest proxy is first."""
    if parts := _list_elements(scope, b"x-forwarded-for"):
        yield from reversed(parts)
        return
    for element in reversed(_list_elements(scope, b"forwarded")):
        pairs = [pair.partition("=") for pair in element.split(";")]
        nodes = [value for name, _, value in pairs if name.strip().lower() == "for"]
        yield nodes[0].strip().strip('"') if len(nodes) == 1 else ""


def _list_elements(scope: Scope, header: bytes) -> list[str]:
    # All lines of the header are joined, because a proxy may add a line instead of extending the
    # existing one. Quotes are ignored when splitting, because a client could open a quote that
    # hides the addresses that the proxies append.
    lines = [value for name, value in scope["headers"] if name == header]
    return [part.strip() for part in b",".join(lines).decode("latin-1").split(",")] if lines else []


def _address_of(node: str) -> str | None:
    """Return the address of a node, without its port; None if it has no valid address."""
    match = _NODE_WITH_PORT.fullmatch(node)
    address = (match[1] or match[2]) if match else node
    return address if _is_ip_address(address) else None


@lru_cache(maxsize=4096)
def _is_in_any_network(address: str, networks: Networks) -> bool:
    if not _is_ip_address(address):
        return False
    ip = ip_address(address)
    unmapped_ip = getattr(ip, "ipv4_mapped", None) or ip
    return any(unmapped_ip in network for network in networks)


def _is_ip_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    # IPv6 zone names such as %eth0 are rejected: they may have any length and any characters
    return "%" not in text
