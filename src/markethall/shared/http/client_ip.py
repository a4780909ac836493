"""The client address behind trusted proxies."""

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address

from starlette.types import Scope

Networks = tuple[IPv4Network | IPv6Network, ...]


def client_ip(scope: Scope, proxies: Networks) -> str:
    """Return the rightmost address of X-Forwarded-For that is not a trusted proxy."""
    peer: str = scope["client"][0] if scope.get("client") else ""
    if not proxies or not _is_in_any_network(peer, proxies):
        return peer
    # a proxy may add a header line instead of extending the existing one
    header_lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    forwarded = b",".join(header_lines).decode("latin-1").split(",")
    for address in reversed([part.strip() for part in forwarded]):
        if not _is_ip_address(address):
            break
        peer = address
        if not _is_in_any_network(address, proxies):
            break
    return peer


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
