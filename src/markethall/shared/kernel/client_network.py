"""The network of a client: the unit in which limits and known devices are counted."""

from ipaddress import IPv6Address


def client_network(client_ip: str) -> str:
    """Return the address, or its /64 for IPv6, because a client has at least a /64 (RFC 6177)."""
    if ":" not in client_ip:
        return client_ip
    try:
        ip = IPv6Address(client_ip)
    except ValueError:
        return client_ip
    return str(ip.ipv4_mapped or f"{IPv6Address(int(ip) >> 64 << 64)}/64")
