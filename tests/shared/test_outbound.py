"""Test that requests to URLs of users reach public addresses only."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from markethall.shared.outbound.client import GuardedHttpClient, is_public, parse_address
from markethall.shared.outbound.port import (
    OutboundFailed,
    OutboundLimits,
    OutboundProblem,
    OutboundResponse,
)

LOOPBACK = [ip_network("127.0.0.0/8")]
LIMITS = OutboundLimits(
    max_bytes=1000, timeout_seconds=30, max_redirects=2, schemes=frozenset({"http", "https"})
)

INNER = [
    "0.0.0.0",  # noqa: S104 # nothing is bound to it
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "172.32.0.1",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]


@pytest.mark.parametrize("address", INNER)
async def test_inner_address_is_refused(address: str) -> None:
    assert not is_public(parse_address(address))
    client = GuardedHttpClient(resolve=resolving_to(address))
    public_too = GuardedHttpClient(resolve=resolving_to("1.1.1.1", address))

    for each in (client, public_too):
        assert await problem_of(each, "http://host.example/") == "forbidden_address"


@pytest.mark.parametrize("address", PUBLIC)
def test_public_address_is_accepted(address: str) -> None:
    assert is_public(parse_address(address))


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "127.0.0.1.",
        "①②⑦.⓪.⓪.①",
    ],
)
async def test_every_spelling_of_loopback_is_refused(host: str) -> None:
    problem = await problem_of(GuardedHttpClient(), f"http://{host}/")

    assert problem in {"forbidden_address", "invalid_url", "unknown_host"}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "images",
        "/media/1",
        "//host.example/",
        "ftp://host.example/",
        "file:///etc/passwd",
        "gopher://host.example/",
        "http://",
        "http:///path",
        "http://user@host.example/",
        "http://user:password@host.example/",
        "http://[::1/",
        "http://host.example\0.other/",
        "http://host\r\nx: y/",
        "javascript:alert(1)",
        "https://..xn--/",
        "https://host.example/\ud800",
    ],
)
async def test_other_urls_are_refused(url: str) -> None:
    client = GuardedHttpClient(resolve=resolving_to("1.1.1.1"))

    assert await problem_of(client, url) == "invalid_url"


async def test_other_ports_are_refused() -> None:
    client = GuardedHttpClient(resolve=resolving_to("1.1.1.1"))

    for port in (22, 25, 5432, 6379, 8000, 99_999):
        assert await problem_of(client, f"http://host.example:{port}/") == "forbidden_address"


async def test_plain_http_is_refused_by_default() -> None:
    client = GuardedHttpClient(LOOPBACK, resolving_to("127.0.0.1"))

    with pytest.raises(OutboundFailed) as error:
        await client.send("GET", "http://host.example/", OutboundLimits())

    assert error.value.problem == OutboundProblem.INVALID_URL


async def test_unknown_host_is_reported() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        raise OSError("no such host")

    assert (
        await problem_of(GuardedHttpClient(resolve=resolve), "http://a.example/") == "unknown_host"
    )
    nothing = GuardedHttpClient(resolve=resolving_to())
    assert await problem_of(nothing, "http://a.example/") == "unknown_host"
    label = "a" * 100
    assert await problem_of(GuardedHttpClient(), f"http://{label}.example/") in {
        "unknown_host",
        "invalid_url",
    }


# With a server on the loopback interface, which these clients may reach


async def test_connection_goes_to_the_checked_address() -> None:
    """A name server that answers differently the second time cannot change the address."""
    lookups: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        lookups.append(host)
        return ["127.0.0.1"] if len(lookups) == 1 else ["10.0.0.1"]

    async with serving(ok(b"content")) as server:
        url = f"http://images.example:{server.port}/a?b=c"
        response = await get(GuardedHttpClient(LOOPBACK, resolve), url)

    assert (response.status, response.content, response.url) == (200, b"content", url)
    assert lookups == ["images.example"]
    head = server.requests[0]
    assert head.startswith("GET /a?b=c HTTP/1.1\r\n")
    assert f"host: images.example:{server.port}\r\n" in head.lower()
    assert "accept-encoding: identity\r\n" in head.lower()


async def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async with serving(ok(b"content")) as server:
        response = await get(client_of(), server.url)

    assert response.content == b"content"


async def test_redirect_is_checked_again() -> None:
    names = {"public.example": "127.0.0.1", "inner.example": "10.0.0.1"}

    async def resolve(host: str, port: int) -> Sequence[str]:
        return [names.get(host, host)]

    client = GuardedHttpClient(LOOPBACK, resolve)
    for target in (
        "http://inner.example/",
        "http://169.254.169.254/latest/meta-data/",
        "//10.0.0.1/",
    ):
        async with serving(redirect(target)) as server:
            url = f"http://public.example:{server.port}/"
            assert await problem_of(client, url) == "forbidden_address"
    for target in (
        "file:///etc/passwd",
        "http://user@public.example/",
        "http://[::1/",
        "http:////[",
        "////[",
        "http://..xn--/",
    ):
        async with serving(redirect(target)) as server:
            url = f"http://public.example:{server.port}/"
            assert await problem_of(client, url) == "invalid_url"


async def test_headers_are_not_sent_to_another_origin() -> None:
    """The headers may contain credentials for the first origin."""
    headers = {"Authorization": "Bearer secret", "X-Api-Key": "secret"}
    async with serving(ok(b"content")) as other, serving(redirect("/1")) as server:
        server.add(redirect(f"http://other.example:{other.port}/2"))
        response = await client_of().send("GET", server.url, LIMITS, headers=headers)

    assert response.content == b"content"
    assert [request.count("secret") for request in server.requests] == [2, 2]
    assert [request.count("secret") for request in other.requests] == [0]


async def test_redirects_are_followed_and_limited() -> None:
    async with serving(redirect("/1"), redirect("/2"), ok(b"content")) as server:
        response = await get(client_of(), server.url)
        assert (response.content, response.url) == (b"content", f"{server.url}2")
    async with serving(redirect("/"), redirect("/"), redirect("/")) as server:
        assert await problem_of(client_of(), server.url) == "too_many_redirects"
    async with serving(redirect("/1")) as server:
        response = await client_of().send("POST", server.url, LIMITS, content=b"event")
        assert response.status == 302
        assert len(server.requests) == 1


async def test_large_response_is_refused() -> None:
    async with serving(ok(bytes(1000))) as server:
        assert len((await get(client_of(), server.url)).content) == 1000
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"400\r\n" + bytes(1024)
    for answer in (ok(bytes(1001)), endless):
        async with serving(answer) as server:
            assert await problem_of(client_of(), server.url) == "too_large"


async def test_compressed_response_is_refused() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\na"
    async with serving(answer) as server:
        assert await problem_of(client_of(), server.url) == "content_encoding"


async def test_other_content_type_is_refused() -> None:
    limits = OutboundLimits(
        content_types=frozenset({"image/png"}), schemes=frozenset({"http"}), timeout_seconds=30
    )
    for header, accepted in (("image/png", True), ("IMAGE/PNG; a=b", True), ("text/html", False)):
        async with serving(ok(b"a", f"Content-Type: {header}\r\n")) as server:
            if accepted:
                assert (await client_of().send("GET", server.url, limits)).content == b"a"
            else:
                with pytest.raises(OutboundFailed) as error:
                    await client_of().send("GET", server.url, limits)
                assert error.value.problem == OutboundProblem.CONTENT_TYPE


async def test_silent_and_slow_servers_time_out() -> None:
    limits = OutboundLimits(timeout_seconds=0.2, schemes=frozenset({"http"}))
    for answer in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\na"):
        async with serving(answer) as server:
            with pytest.raises(OutboundFailed) as error:
                await client_of().send("GET", server.url, limits)
            assert error.value.problem == OutboundProblem.TIMEOUT


async def test_closed_port_and_invalid_response_are_unreachable() -> None:
    async with serving(b"this is not HTTP\r\n\r\n") as server:
        assert await problem_of(client_of(), server.url) == "unreachable"
        port = server.port
    assert await problem_of(client_of(), f"http://host.example:{port}/") == "unreachable"


async def test_certificate_is_verified_for_the_name(tmp_path: Path) -> None:
    server_tls, client_tls = tls_for("images.example", tmp_path)
    client = GuardedHttpClient(LOOPBACK, resolving_to("127.0.0.1"), client_tls)

    async with serving(ok(b"content"), tls=server_tls) as server:
        response = await get(client, f"https://images.example:{server.port}/")
        assert response.content == b"content"
        other = f"https://other.example:{server.port}/"
        assert await problem_of(client, other) == "unreachable"
        untrusting = GuardedHttpClient(LOOPBACK, resolving_to("127.0.0.1"))
        assert (
            await problem_of(untrusting, f"https://images.example:{server.port}/") == "unreachable"
        )


class Server:
    """A server on the loopback interface that gives one answer to each request, in turn."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self.requests: list[str] = []
        self.port = 0
        self._answers = list(answers)

    @property
    def url(self) -> str:
        return f"http://host.example:{self.port}/"

    def add(self, answer: bytes) -> None:
        self._answers.append(answer)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head.decode())
            writer.write(self._answers.pop(0))
            # the client closes the connection
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def serving(*answers: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(answers)
    listening = await asyncio.start_server(server.answer, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        await listening.wait_closed()


def ok(content: bytes, headers: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\n{headers}Content-Length: {len(content)}\r\n\r\n".encode() + content


def redirect(target: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()


def resolving_to(*addresses: str) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


def client_of() -> GuardedHttpClient:
    return GuardedHttpClient(LOOPBACK, resolving_to("127.0.0.1"))


async def get(client: GuardedHttpClient, url: str) -> OutboundResponse:
    return await client.send("GET", url, LIMITS)


async def problem_of(client: GuardedHttpClient, url: str) -> str:
    with pytest.raises(OutboundFailed) as error:
        await get(client, url)
    assert "10.0.0.1" not in str(error.value)
    return error.value.problem.value


def tls_for(name: str, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the TLS settings of a server with this name, and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(Encoding.PEM)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.pem").write_bytes(secret + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem")
    return server, ssl.create_default_context(cadata=pem.decode())
