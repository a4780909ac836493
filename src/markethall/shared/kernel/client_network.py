"""The network of a client, in which all its addresses count as one client for the limits."""

from ipaddress import IPv6Address


def client_network(client_ip: str) -> str:
    """Return the IPv4 address, or the /64 network of the IPv6 address.

    A client usually has at least a whole /64 (RFC 6177), so it can change its address within it.
    """
    if ":" not in client_ip:
        return client_ip
    try:
        ip = IPv6Address(client_ip)
    except ValueError:
        return client_ip
    return str(ip.ipv4_mapped or f"{IPv6Address(int(ip) >> 64 << 64)}/64")
