"""The network of a client. For the limits, all addresses of the network count as one client."""

from ipaddress import IPv6Address


def client_network(client_ip: str) -> str:
    """Return the IPv4 address, or the /64 network of the IPv6 address.

    A client usually has at least a whole /64 (RFC 6177), so it could evade a limit on one address.
    """
    if ":" not in client_ip:
        return client_ip
    try:
        ip = IPv6Address(client_ip)
    except ValueError:
        return client_ip
    return str(ip.ipv4_mapped or f"{IPv6Address(int(ip) >> 64 << 64)}/64")
