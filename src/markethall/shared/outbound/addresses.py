"""Distinguishes public IP addresses from addresses of internal networks."""

from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from typing import Final

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

# deprecated anycast addresses of 6to4 relays (RFC 7526)
_REFUSED_V4: Final = (IPv4Network("192.88.99.0/24"),)
# the only block from which global unicast addresses are assigned
_GLOBAL_UNICAST_V6: Final = IPv6Network("2000::/3")
_REFUSED_V6: Final = (
    # special purposes, such as Teredo, which contains an IPv4 address
    IPv6Network("2001::/23"),
    # 6to4, which contains an IPv4 address
    IPv6Network("2002::/16"),
    # documentation
    IPv6Network("2001:db8::/32"),
    IPv6Network("3fff::/20"),
)
# The prefix of NAT64 (RFC 6052). In networks without IPv4, name servers return addresses with this
# prefix, whose last 32 bits are the IPv4 address of the host. The local prefix of RFC 8215 is not
# public.
_NAT64: Final = IPv6Network("64:ff9b::/96")


def is_public(address: IpAddress) -> bool:
    """Tell whether the address is a unicast address of the internet.

    Private, loopback, link-local, shared, reserved and multicast addresses are not public. An IPv6
    address that contains such an IPv4 address is not public either.
    """
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast and not _is_in(address, _REFUSED_V4)
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in _NAT64:
        return is_public(IPv4Address(address.packed[-4:]))
    return address in _GLOBAL_UNICAST_V6 and address.is_global and not _is_in(address, _REFUSED_V6)


def is_allowed(address: IpAddress, networks: Sequence[IpNetwork]) -> bool:
    """Tell whether a network contains the address, or the IPv4 address that is mapped to it."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return _is_in(mapped or address, networks)


def parse_address(text: str) -> IpAddress:
    """Return the address without its zone. Raises ValueError."""
    return ip_address(text.partition("%")[0])


def _is_in(address: IpAddress, networks: Sequence[IpNetwork]) -> bool:
    return any(address in network for network in networks)
