"""An HTTP client that connects to public addresses only, against server-side request forgery.

This is the risk API7 of OWASP. A host name is resolved once. All its addresses must be public, and
the client connects to one of the checked addresses, so a different later response of the name
server has no effect. The certificate is verified for the host name. Redirects are checked in the
same way. The proxies of the environment are not used, because a proxy would resolve the name again.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from typing import Final

import httpx2

from markethall.shared.outbound.port import (
    OutboundFailed,
    OutboundLimits,
    OutboundProblem,
    OutboundResponse,
)

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


Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_DEFAULT_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


async def resolve_host(host: str, port: int) -> Sequence[str]:
    """Return the addresses of the host as the system resolves it. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class GuardedHttpClient:
    """Implements `OutboundHttp`.

    `allowed_networks` are internal networks to which the client may also connect, on any port, such
    as the network of a private CDN.
    """

    def __init__(
        self,
        allowed_networks: Sequence[IpNetwork] = (),
        resolve: Resolve = resolve_host,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed_networks = tuple(allowed_networks)
        self._resolve = resolve
        self._given_tls = tls

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The given context, or one with the certificates of the system.

        They take 1 MB and 20 ms, and most processes never use them, so they are read at first use.
        """
        return self._given_tls or ssl.create_default_context()

    async def send(
        self,
        method: str,
        url: str,
        limits: OutboundLimits,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
    ) -> OutboundResponse:
        try:
            async with asyncio.timeout(limits.timeout_seconds):
                return await self._follow(method, url, limits, headers or {}, content)
        except TimeoutError:
            raise OutboundFailed(OutboundProblem.TIMEOUT) from None
        except httpx2.TimeoutException:
            raise OutboundFailed(OutboundProblem.TIMEOUT) from None
        # httpx2 also parses the target of a redirect, and raises a plain ValueError for some URLs
        except (httpx2.InvalidURL, ValueError):
            raise OutboundFailed(OutboundProblem.INVALID_URL) from None
        except (httpx2.HTTPError, httpx2.StreamError, OSError):
            raise OutboundFailed(OutboundProblem.UNREACHABLE) from None

    async def _follow(
        self,
        method: str,
        url: str,
        limits: OutboundLimits,
        headers: Mapping[str, str],
        content: bytes,
    ) -> OutboundResponse:
        target = _parse_url(url)
        for _ in range(limits.max_redirects + 1):
            response = await self._send_once(method, target, limits, headers, content)
            location = response.headers.get("location")
            if method != "GET" or response.status not in _REDIRECTS or not location:
                return response
            next_target = _parse_url(location, target)
            if (target.scheme, next_target.scheme) == ("https", "http"):
                raise OutboundFailed(OutboundProblem.INVALID_URL)
            if _origin_of(next_target) != _origin_of(target):
                # the headers may contain credentials for the first origin
                headers = {}
            target = next_target
        raise OutboundFailed(OutboundProblem.TOO_MANY_REDIRECTS)

    async def _send_once(
        self,
        method: str,
        url: httpx2.URL,
        limits: OutboundLimits,
        headers: Mapping[str, str],
        content: bytes,
    ) -> OutboundResponse:
        address = await self._checked_address(url, limits)
        host = url.raw_host.decode("ascii")
        # Each request has its own client. A connection pool would reuse a connection to this
        # address for another host name, for which the certificate was not verified.
        transport = httpx2.AsyncHTTPTransport(verify=self._tls, trust_env=False)
        sent_headers = {
            "accept": "*/*",
            # a compressed response could be much larger than the received bytes
            "accept-encoding": "identity",
            **headers,
            "host": url.netloc.decode("ascii"),
        }
        async with (
            httpx2.AsyncClient(
                transport=transport, trust_env=False, timeout=limits.timeout_seconds
            ) as client,
            client.stream(
                method,
                url.copy_with(host=str(address)),
                headers=sent_headers,
                content=content,
                extensions={"sni_hostname": host},
            ) as response,
        ):
            return await _read(response, str(url), limits)

    async def _checked_address(self, url: httpx2.URL, limits: OutboundLimits) -> IpAddress:
        """Resolve the host, check all its addresses, and return one. Raises OutboundFailed."""
        if url.scheme not in limits.schemes or not url.host or url.userinfo:
            raise OutboundFailed(OutboundProblem.INVALID_URL)
        port = url.port or _DEFAULT_PORTS[url.scheme]
        try:
            found = await self._resolve(url.raw_host.decode("ascii"), port)
            addresses = [parse_address(text) for text in found]
        except (OSError, ValueError):  # ValueError: the name is not valid, such as a long label
            raise OutboundFailed(OutboundProblem.UNKNOWN_HOST) from None
        if not addresses:
            raise OutboundFailed(OutboundProblem.UNKNOWN_HOST)
        # all addresses are checked, so that the order in which they are returned does not matter
        if not all(self._may_reach(address, port, limits) for address in addresses):
            raise OutboundFailed(OutboundProblem.FORBIDDEN_ADDRESS)
        return addresses[0]

    def _may_reach(self, address: IpAddress, port: int, limits: OutboundLimits) -> bool:
        if is_allowed(address, self._allowed_networks):
            return True
        return is_public(address) and port in limits.ports


def _parse_url(url: str, base: httpx2.URL | None = None) -> httpx2.URL:
    """Return the URL, which may be relative to `base`. Raises OutboundFailed."""
    try:
        parsed = base.join(url) if base else httpx2.URL(url)
        # reading the property raises an error if the host name is not a valid IDNA name
        _ = parsed.host
    except (httpx2.InvalidURL, ValueError, TypeError):
        raise OutboundFailed(OutboundProblem.INVALID_URL) from None
    return parsed


def _origin_of(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


async def _read(response: httpx2.Response, url: str, limits: OutboundLimits) -> OutboundResponse:
    """Read the body within the limits. Raises OutboundFailed."""
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise OutboundFailed(OutboundProblem.CONTENT_ENCODING)
    if response.is_success and limits.content_types:
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in limits.content_types:
            raise OutboundFailed(OutboundProblem.CONTENT_TYPE)
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > limits.max_bytes:
            raise OutboundFailed(OutboundProblem.TOO_LARGE)
    return OutboundResponse(response.status_code, url, dict(response.headers), bytes(content))
