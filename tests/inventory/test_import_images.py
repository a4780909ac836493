"""Test that an import fetches images from public addresses, and goes on when it cannot."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

import pytest

from markethall.inventory.catalogue.contract.products import ProductView
from markethall.inventory.imports.contract import ImportFormat, NoteKind
from markethall.inventory.imports.service.row_images import RowImages
from markethall.shared.kernel.pagination import PageQuery
from markethall.shared.outbound.client import GuardedHttpClient
from markethall.shared.outbound.port import OutboundLimits
from tests.inventory.conftest import ANYONE, STAFF, build_inventory_app
from tests.inventory.image_files import InProcessImages, encoded, picture
from tests.inventory.import_client import ImportClient, counts

MAX_BYTES = 10 * 1024 * 1024
LIMITS = OutboundLimits(
    max_bytes=MAX_BYTES, timeout_seconds=2, max_redirects=3, schemes=frozenset({"http", "https"})
)
PNG = encoded(picture(200, 100), "PNG")


class ImageServer:
    """An HTTP server on the loopback interface. `requested` has the paths of all requests."""

    def __init__(self) -> None:
        self.port = 0
        self.requested: list[str] = []

    def url(self, path: str, host: str = "images.example") -> str:
        return f"http://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = request.split()[1]
            self.requested.append(path)
            writer.write(await self._response(path, reader))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _response(self, path: str, reader: asyncio.StreamReader) -> bytes:
        match path:
            case "/slow.png":
                # until the client closes the connection
                await reader.read()
                raise ConnectionError
            case "/large.png":
                return _ok(b"\0" * (MAX_BYTES + 1024 * 1024))
            case "/text.png":
                return _ok(b"<svg/>")
            case "/to-metadata.png":
                return _moved("http://169.254.169.254/latest/meta-data/")
            case "/to-image.png":
                return _moved("/image.png")
            case "/missing.png":
                return b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
        return _ok(PNG)


def _ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def _moved(location: str) -> bytes:
    head = f"HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
    return head.encode()


@asynccontextmanager
async def image_server() -> AsyncIterator[ImageServer]:
    images = ImageServer()
    server = await asyncio.start_server(images.serve, "127.0.0.1", 0)
    images.port = server.sockets[0].getsockname()[1]
    try:
        yield images
    finally:
        server.close()
        await server.wait_closed()


async def resolve(host: str, port: int) -> Sequence[str]:
    """Resolve the test's host names, and addresses in the URL."""
    return {
        "images.example": ["127.0.0.1"],
        "inner.example": ["10.0.0.1"],
        "both.example": ["127.0.0.1", "10.0.0.1"],
    }.get(host, [host])


@pytest.fixture(params=["memory", "sql"])
def import_client(request: pytest.FixtureRequest) -> ImportClient:
    postgres = request.getfixturevalue("postgres") if request.param == "sql" else None
    return ImportClient(build_inventory_app(request.param, postgres))


@pytest.fixture
async def images(import_client: ImportClient) -> AsyncIterator[ImageServer]:
    container = import_client.inventory_app.container
    container.image_processor.override(InProcessImages())
    # the test server has a loopback address, which an import refuses by default
    http = GuardedHttpClient([ip_network("127.0.0.0/8")], resolve)
    container.row_images.override(RowImages(http, container.media(), LIMITS))
    async with image_server() as server:
        yield server


async def product(import_client: ImportClient, sku: str) -> ProductView:
    return await import_client.inventory_app.catalogue.get_product_by_sku(ANYONE, sku)


async def stored_images(import_client: ImportClient) -> int:
    media = import_client.inventory_app.container.media()
    return len((await media.list_media(STAFF, PageQuery(limit=100))).items)


def csv_of(**urls: str) -> str:
    rows = [f"{sku},{sku},1,{url}" for sku, url in urls.items()]
    return "\n".join(["sku,name,price,images", *rows, ""])


async def test_image_of_url_becomes_media_of_product(
    import_client: ImportClient, images: ImageServer
) -> None:
    file = csv_of(A=images.url("/image.png"), B=images.url("/to-image.png"))

    done = await import_client.import_to_end(file, fetch_images=True)

    assert counts(done) == (2, 2, 0, 0, 0)
    assert done.fetch_images
    assert await import_client.notes(done, NoteKind.WARNING) == []
    [url] = (await product(import_client, "A")).images
    assert url.startswith("/media/")
    assert url.endswith("/200.webp")
    assert (await product(import_client, "B")).images == (url,)
    assert await stored_images(import_client) == 1


async def test_second_import_of_file_changes_nothing(
    import_client: ImportClient, images: ImageServer
) -> None:
    file = csv_of(A=images.url("/image.png"))
    await import_client.import_to_end(file, fetch_images=True)

    again = await import_client.import_to_end(file, fetch_images=True)

    assert counts(again) == (1, 0, 0, 1, 0)
    assert await stored_images(import_client) == 1


@pytest.mark.parametrize("options", [{}, {"fetch_images": True, "dry_run": True}])
async def test_import_without_option_and_dry_run_fetch_nothing(
    import_client: ImportClient, images: ImageServer, options: dict[str, Any]
) -> None:
    url = images.url("/image.png")

    done = await import_client.import_to_end(csv_of(A=url), **options)

    assert done.rows.created == 1
    assert images.requested == []
    if not options:
        assert (await product(import_client, "A")).images == (url,)


async def test_hostile_urls_are_warnings_and_import_goes_on(
    import_client: ImportClient, images: ImageServer
) -> None:
    hostile = {
        "METADATA": ("http://169.254.169.254/latest/meta-data/", "forbidden_address"),
        "LOOPBACK6": ("http://[::1]/image.png", "forbidden_address"),
        "INNER": ("http://inner.example/image.png", "forbidden_address"),
        "REBINDING": (images.url("/image.png", "both.example"), "forbidden_address"),
        "REDIRECT": (images.url("/to-metadata.png"), "forbidden_address"),
        "LARGE": (images.url("/large.png"), "too_large"),
        "SLOW": (images.url("/slow.png"), "timeout"),
        "MARKUP": (images.url("/text.png"), "image_refused"),
        "MISSING": (images.url("/missing.png"), "http_status"),
    }
    file = csv_of(**{sku: url for sku, (url, _) in hostile.items()}, GOOD=images.url("/image.png"))

    done = await import_client.import_to_end(file, fetch_images=True)

    assert counts(done) == (10, 10, 0, 0, 0)
    assert done.rows.warnings == len(hostile)
    warnings = await import_client.notes(done, NoteKind.WARNING)
    assert [(each.line, each.field, each.code) for each in warnings] == [
        (line, "images", code) for line, (_, code) in enumerate(hostile.values(), start=2)
    ]
    for sku, (url, _) in hostile.items():
        assert (await product(import_client, sku)).images == (url,)
    assert (await product(import_client, "GOOD")).images[0].startswith("/media/")
    assert await stored_images(import_client) == 1


async def test_images_of_families_are_fetched(
    import_client: ImportClient, images: ImageServer
) -> None:
    url = images.url("/image.png")
    file = f'label,images\nmugs,"[""{url}""]"\n'

    done = await import_client.import_to_end(file, fetch_images=True, format=ImportFormat.CSV)

    assert done.rows.families_created == 1, await import_client.errors(done)
    assert await stored_images(import_client) == 1


async def test_guard_refuses_server_on_loopback_by_default(import_client: ImportClient) -> None:
    import_client.inventory_app.container.image_processor.override(InProcessImages())
    async with image_server() as server:
        file = csv_of(A=server.url("/image.png", "127.0.0.1"))

        done = await import_client.import_to_end(file, fetch_images=True)

        assert server.requested == []
    assert done.rows.warnings == 1
