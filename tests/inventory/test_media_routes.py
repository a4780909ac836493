"""The HTTP API of media."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from markethall.app import Gateway, create_app
from markethall.inventory.media.memory import MemoryMediaStorage
from markethall.inventory.settings import MULTIPART_OVERHEAD_BYTES
from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.scopes import STOCK_WRITE
from tests.containers import inventory_of
from tests.inventory.image_files import InProcessImages, jpeg, png
from tests.test_app import ADMIN, client_of, memory_settings

MAX_BYTES = 100_000
FORM = {"Content-Type": "multipart/form-data; boundary=limit"}


@pytest.fixture(scope="module")
def app() -> Gateway:
    app = create_app(memory_settings(max_media_bytes=MAX_BYTES, body_timeout=30, rate_limits="off"))
    inventory_of(app.container).image_processor.override(InProcessImages())
    return app


@pytest.fixture(scope="module")
async def http(app: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(app) as client:
        form = {"username": ADMIN["admin_email"], "password": ADMIN["admin_password"]}
        token = (await client.post("/token", data=form)).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


async def upload(
    http: httpx2.AsyncClient, data: bytes = b"", key: str | None = None
) -> httpx2.Response:
    files = {"file": ("name.png", data or png(200, 100), "image/png")}
    headers = {"Idempotency-Key": key} if key else {}
    return await http.post("/media", files=files, headers=headers)


async def post(http: httpx2.AsyncClient, body: bytes) -> httpx2.Response:
    return await http.post("/media", content=body, headers=FORM)


def part(content: bytes = b"", disposition: str = 'form-data; name="file"; filename="a"') -> bytes:
    head = f"--limit\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
    return head + (content or png()) + b"\r\n"


END = b"--limit--\r\n"


async def test_upload_answers_with_its_address(http: httpx2.AsyncClient) -> None:
    response = await upload(http)

    made = response.json()
    path = f"/media/{made['media_id']}"
    assert response.status_code == 201
    assert response.headers["location"] == path
    assert response.headers["etag"] == '"v1"'
    assert (made["url"], made["width"], made["height"]) == (f"{path}/200.webp", 200, 100)
    assert (await http.get(path)).json() == made
    assert made in (await http.get("/media")).json()["items"]


async def test_anyone_reads_images_which_caches_keep(http: httpx2.AsyncClient) -> None:
    made = (await upload(http)).json()

    response = await http.get(made["sizes"][0]["url"], headers={"Authorization": ""})

    assert response.status_code == 200
    assert response.content[8:12] == b"WEBP"
    assert response.headers["content-type"] == "image/webp"
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert response.headers["x-content-type-options"] == "nosniff"
    tag = response.headers["etag"]
    assert (await http.get(made["url"])).headers["etag"] != tag
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await http.get(made["sizes"][0]["url"], headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        assert again.headers["cache-control"] == response.headers["cache-control"]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("320.webp", 404),
        ("201.webp", 404),
        ("99999.webp", 404),
        ("0160.webp", 422),
        ("0.webp", 422),
        ("-160.webp", 422),
        ("160.0.webp", 422),
        ("999999.webp", 422),
        ("a.webp", 422),
        ("%2e%2e%2f160.webp", 404),
        ("160.png", 404),
        ("160", 404),
        ("160.webp.webp", 422),
        ("٣٢٠.webp", 422),
    ],
)
async def test_unknown_sizes_are_not_found(
    http: httpx2.AsyncClient, name: str, status: int
) -> None:
    made = (await upload(http)).json()

    response = await http.get(f"/media/{made['media_id']}/{name}")

    assert response.status_code == status
    assert response.headers["cache-control"] == "no-store"
    missing = "0199c0de-0000-7000-8000-000000000001"
    assert (await http.get(f"/media/{missing}/160.webp")).status_code == 404
    assert (await http.get(f"/media/{missing}")).status_code == 404
    assert (await http.get("/media/../160.webp")).status_code == 404


async def test_idempotency_key_creates_one_image(http: httpx2.AsyncClient) -> None:
    first = await upload(http, key="spring")
    second = await upload(http, key="spring")
    other = await upload(http, jpeg(), key="spring")

    assert first.content == second.content
    assert second.headers["idempotency-replayed"] == "true"
    assert second.headers["location"] == first.headers["location"]
    assert (other.status_code, other.json()["code"]) == (422, "idempotency.payload_mismatch")


async def test_refused_upload_is_replayed(http: httpx2.AsyncClient) -> None:
    answers = [await upload(http, b"<svg/>", key="svg") for _ in range(2)]

    for answer in answers:
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (422, "inventory.image_refused")
        assert problem["details"] == {"reason": "unsupported_format"}


async def test_deleted_image_is_not_found(http: httpx2.AsyncClient) -> None:
    made = (await upload(http)).json()
    path = f"/media/{made['media_id']}"
    assert (await http.delete(path)).status_code == 428
    assert (await http.delete(path, headers={"If-Match": '"v2"'})).status_code == 412

    assert (await http.delete(path, headers={"If-Match": '"v1"'})).status_code == 204

    assert (await http.get(path)).status_code == 404
    assert (await http.get(made["url"])).status_code == 404
    assert (await http.delete(path, headers={"If-Match": '"v1"'})).status_code == 404


async def test_only_catalogue_staff_uploads(app: Gateway, http: httpx2.AsyncClient) -> None:
    signer = app.container.process.access_token_signer()
    other = signer.sign(Actor(scopes=frozenset({STOCK_WRITE})))
    for headers, status in (
        ({"Authorization": ""}, 401),
        ({"Authorization": f"Bearer {other}"}, 401),
    ):
        assert (await http.post("/media", content=b"", headers=headers)).status_code == status
        assert (await http.get("/media", headers=headers)).status_code == status


async def test_product_takes_the_path_of_an_image(http: httpx2.AsyncClient) -> None:
    made = (await upload(http)).json()
    product = {"sku": "TEA", "name": "Tea", "price": {"amount": 1, "currency": "EUR"}}

    images = [made["url"], "https://images.example/tea.jpg"]
    response = await http.post("/products", json=product | {"images": images})

    assert response.status_code == 201
    assert response.json()["images"] == images
    for refused in ("/other/a.webp", "//host/media/a.webp", "/media/../a.webp", "/media/1/2.webp"):
        body = product | {"sku": "TEA-2", "images": [refused]}
        assert (await http.post("/products", json=body)).status_code == 422


BAD_BODIES = {
    "empty": (b"", 400),
    "no_boundary_in_body": (b"hello", 400),
    "only_the_end": (END, 422),
    "other_boundary": (part().replace(b"--limit", b"--other") + b"--other--\r\n", 400),
    "no_end": (part(), 400),
    "no_end_of_headers": (b'--limit\r\nContent-Disposition: form-data; name="file"', 400),
    "no_disposition": (b"--limit\r\nX: y\r\n\r\n" + png() + b"\r\n" + END, 422),
    "other_name": (part(disposition='form-data; name="image"; filename="a"') + END, 422),
    "no_name": (part(disposition='form-data; filename="a"') + END, 422),
    "no_file_name": (part(disposition='form-data; name="file"') + END, 422),
    "encoded_file_name": (part(disposition="form-data; name=file; filename*=UTF-8''a") + END, 422),
    "attachment": (part(disposition='attachment; name="file"; filename="a"') + END, 422),
    "two_files": (part() + part() + END, 422),
    "file_and_field": (part() + part(b"1", 'form-data; name="alt"') + END, 422),
    "field_and_file": (part(b"1", 'form-data; name="alt"') + part() + END, 422),
    "a_thousand_parts": (part(b"x") * 600 + END, 422),
    "nested": (
        b'--limit\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n'
        b"Content-Type: multipart/mixed; boundary=inner\r\n\r\n--inner\r\n\r\n"
        + png() + b"\r\n--inner--\r\n\r\n" + END,
        422,
    ),
    "huge_header": (part(disposition=f'form-data; name="{"a" * 50_000}"') + END, 400),
    "many_headers": (
        b"--limit\r\n" + b"X-Part: 1\r\n" * 1_000 + b"\r\n" + END,
        400,
    ),
    "header_without_colon": (b"--limit\r\nContent-Disposition\r\n\r\n" + END, 400),
    "base64": (
        b'--limit\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n'
        b"Content-Transfer-Encoding: base64\r\n\r\niVBORw0KGgo=\r\n" + END,
        422,
    ),
    "nul_in_header": (part(disposition='form-data; name="file\0"; filename="a"') + END, 422),
    "empty_file": (part(b"").replace(png(), b"") + END, 422),
    "too_large": (part(bytes(MAX_BYTES + 20_000)) + END, 413),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_BODIES)
async def test_odd_multipart_body_is_refused(
    app: Gateway, http: httpx2.AsyncClient, name: str
) -> None:
    body, status = BAD_BODIES[name]
    before = len((await http.get("/media?limit=100")).json()["items"])

    response = await post(http, body)

    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert len((await http.get("/media?limit=100")).json()["items"]) == before


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("", 415),
        ("application/json", 415),
        ("image/png", 415),
        ("multipart/mixed; boundary=limit", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ('multipart/form-data; boundary=""', 400),
        ("multipart/form-data; boundary=" + "a" * 71, 400),
        ("multipart/form-data; boundary=ä", 400),
        ('multipart/form-data; boundary="a\\"b"', 400),
        ('multipart/form-data; boundary="a b"', 400),
    ],
)
async def test_odd_content_type_is_refused(
    http: httpx2.AsyncClient, content_type: str, status: int
) -> None:
    headers = {b"Content-Type": content_type.encode("latin-1")}

    response = await http.post("/media", content=part() + END, headers=headers)

    assert response.status_code == status, response.text


@pytest.mark.parametrize(
    "disposition",
    [
        'form-data; name="file"; filename="../../etc/passwd"',
        'form-data; name="file"; filename="a.svg\\"; x=\\"y.html"',
        'form-data; name="file"; filename=""',
        'FORM-DATA; name=file; filename="a"',
    ],
)
async def test_file_name_does_not_matter(http: httpx2.AsyncClient, disposition: str) -> None:
    response = await post(http, part(disposition=disposition) + END)

    assert response.status_code == 201, response.text
    assert "passwd" not in response.text


async def test_body_in_small_chunks_is_read(http: httpx2.AsyncClient) -> None:
    body = part() + END

    async def chunks() -> AsyncIterator[bytes]:
        for position in range(len(body)):
            yield body[position : position + 1]

    response = await http.post("/media", content=chunks(), headers=FORM)

    assert response.status_code == 201


async def test_upload_without_end_is_not_stored(app: Gateway, http: httpx2.AsyncClient) -> None:
    storage = inventory_of(app.container).media_storage()
    assert isinstance(storage, MemoryMediaStorage)
    before = len(storage._files)
    started = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield part()[:-20]
        started.set()
        await asyncio.Event().wait()

    request = asyncio.create_task(http.post("/media", content=chunks(), headers=FORM))
    await started.wait()
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)

    assert len(storage._files) == before


async def test_larger_file_than_allowed_is_refused(http: httpx2.AsyncClient) -> None:
    for size, status in ((MAX_BYTES, 201), (MAX_BYTES + MULTIPART_OVERHEAD_BYTES, 413)):
        response = await upload(http, jpeg() + bytes(size - len(jpeg())))

        assert response.status_code == status, response.text
