"""Test which language the texts of products, families and categories have in responses."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from markethall.app import Gateway, create_app
from markethall.settings import read_settings
from markethall.shared.composition.settings import SettingsError
from tests.containers import inventory_of
from tests.test_app import ADMIN

TRANSLATIONS = {
    "de": {"name": "Tee", "description": "Grün"},
    "fr": {"name": "Thé", "description": None},
    "pt-BR": {"name": "Chá"},
}


@pytest.fixture(params=["memory", "sql"])
def storage(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "memory":
        return {"storage": "memory"}
    return {"database_url": request.getfixturevalue("database_url"), "database_timeout": 30}


@pytest.fixture
async def app(storage: dict[str, Any], tmp_path: Any) -> AsyncIterator[Gateway]:
    app = create_app(read_settings(data_dir=tmp_path, **storage, **ADMIN))
    async with app.lifespan():
        # a frozen clock, so that no entry expires on a slow machine
        inventory_of(app.container).cache()._clock = lambda: 0.0
        yield app


# for tests that do not depend on the storage
in_memory = pytest.mark.parametrize("storage", [{"storage": "memory"}], ids=["memory"])


@pytest.fixture
async def staff(app: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    async with client(app) as http:
        form = {"username": ADMIN["admin_email"], "password": ADMIN["admin_password"]}
        token = (await http.post("/token", data=form)).json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        yield http


@pytest.fixture
async def http(app: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    async with client(app) as http:
        yield http


def client(app: Gateway) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://shop")


async def add(staff: httpx2.AsyncClient, sku: str, **fields: Any) -> dict[str, Any]:
    body = {"sku": sku, "name": "Tea", "description": "Green", "category": "drinks"}
    price = {"amount": 1, "currency": "EUR"}
    answer = await staff.post("/products", json={**body, "price": price, **fields})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def texts(http: httpx2.AsyncClient, path: str, header: str | None = None) -> Any:
    """Return name, description and Content-Language."""
    answer = await http.get(path, headers={} if header is None else {"Accept-Language": header})
    assert answer.status_code == 200, answer.text
    assert answer.headers["vary"].lower() == "accept-language"
    body = answer.json()
    return body["name"], body["description"], answer.headers.get("content-language")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, ("Tea", "Green", None)),
        ("", ("Tea", "Green", None)),
        ("de", ("Tee", "Grün", "de")),
        ("de-AT,en;q=0.9", ("Tee", "Grün", "de")),
        ("fr-CA", ("Thé", "Green", "fr")),
        ("en, fr;q=0.1, de;q=0.2", ("Tee", "Grün", "de")),
        ("pt-br", ("Chá", "Green", "pt-BR")),
        ("pt", ("Tea", "Green", None)),
        ("de;q=0", ("Tea", "Green", None)),
        ("*", ("Tea", "Green", None)),
        ("@;;,=" * 500, ("Tea", "Green", None)),
    ],
)
async def test_header_picks_language_of_product(
    http: httpx2.AsyncClient, staff: httpx2.AsyncClient, header: str | None, expected: Any
) -> None:
    product = await add(staff, "A", translations=TRANSLATIONS)

    for path in (f"/products/{product['product_id']}", "/products/by-sku/a"):
        # the second response comes from the cache
        assert [await texts(http, path, header) for _ in range(2)] == [expected] * 2
        assert await texts(staff, path, header) == expected


async def test_lang_replaces_header(http: httpx2.AsyncClient, staff: httpx2.AsyncClient) -> None:
    product = await add(staff, "A", translations=TRANSLATIONS)
    path = f"/products/{product['product_id']}"

    assert await texts(http, f"{path}?lang=fr", "de") == ("Thé", "Green", "fr")
    assert await texts(http, f"{path}?lang=de-AT", "fr") == ("Tee", "Grün", "de")
    assert await texts(http, f"{path}?lang=nl", "de") == ("Tea", "Green", None)


@in_memory
@pytest.mark.parametrize("lang", ["", "*", "d_e", "de,fr", "x" * 9, "de-" * 20, "ä", "%20de"])
@pytest.mark.parametrize("path", ["/products", "/products/by-sku/a", "/categories"])
async def test_malformed_lang_is_rejected(http: httpx2.AsyncClient, path: str, lang: str) -> None:
    answer = await http.get(f"{path}?lang={lang}")

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "/query/lang"


async def test_pages_have_one_language(http: httpx2.AsyncClient, staff: httpx2.AsyncClient) -> None:
    await add(staff, "A", translations={"de": {"name": "Tee"}}, family="f")
    await add(staff, "B", translations={"fr": {"name": "Thé"}}, family="f")
    await add(staff, "C", translations={"de-AT": {"name": "Tää"}, "fr": {"name": "Thé"}})

    async def names(query: str, header: str = "") -> Any:
        answer = await http.get(
            f"/products?sort=-created_at{query}", headers={"Accept-Language": header}
        )
        named = [item["name"] for item in answer.json()["items"]]
        return named, answer.headers.get("content-language")

    assert await names("") == (["Tea", "Tea", "Tea"], None)
    assert await names("", "de-AT, fr;q=0.5") == (["Tää", "Tea", "Tee"], "de-AT")
    assert await names("", "de") == (["Tea", "Tea", "Tee"], "de")
    assert await names("&lang=fr", "de") == (["Thé", "Thé", "Tea"], "fr")
    assert await names("&q=tee&lang=nl") == (["Tea"], None)


async def test_categories_have_translated_names(
    http: httpx2.AsyncClient, staff: httpx2.AsyncClient
) -> None:
    body = {"category": "tea", "name": "Tea", "translations": {"de": {"name": "Tee"}}}
    created = (await staff.post("/categories", json=body)).json()

    page = await http.get("/categories", headers={"Accept-Language": "de"})
    one = await http.get(f"/categories/{created['category_id']}?lang=de-CH")
    plain = await http.get("/categories")

    assert page.json()["items"][0]["name"] == one.json()["name"] == "Tee"
    assert page.headers["content-language"] == one.headers["content-language"] == "de"
    assert plain.json()["items"][0]["name"] == "Tea"
    assert "content-language" not in plain.headers


async def test_family_has_translated_products(
    http: httpx2.AsyncClient, staff: httpx2.AsyncClient
) -> None:
    product = await add(staff, "A", translations=TRANSLATIONS)

    page = await http.get("/products", headers={"Accept-Language": "de"})
    assert page.json()["items"][0]["product_id"] == product["product_id"]
    slug = (await http.get(f"/families/{product['product_id']}", follow_redirects=True)).json()
    family = await http.get(f"/families/{slug['slug']}", headers={"Accept-Language": "de"})

    assert family.json()["products"][0]["name"] == "Tee"
    assert family.headers["content-language"] == "de"


async def test_each_language_has_an_etag_of_its_own(
    http: httpx2.AsyncClient, staff: httpx2.AsyncClient
) -> None:
    product = await add(staff, "A", translations={"de": {"name": "Tee"}, "nl": {"name": "Tee"}})
    path = f"/products/{product['product_id']}"

    async def tag(header: str) -> str:
        return str((await http.get(path, headers={"Accept-Language": header})).headers["etag"])

    tags = [await tag(header) for header in ("", "de", "nl", "de-AT", "fr")]
    german = {"Accept-Language": "de-CH", "If-None-Match": tags[1]}
    unchanged = await http.get(path, headers=german)
    other = await http.get(path, headers={**german, "Accept-Language": "nl"})
    edited = await staff.patch(path, json={"name": "T"}, headers={"If-Match": tags[1]})

    assert len(set(tags)) == 3
    assert (tags[1], tags[0]) == (tags[3], tags[4])
    assert (unchanged.status_code, other.status_code) == (304, 200)
    assert unchanged.headers["vary"].lower() == "accept-language"
    # the version in the ETag is that of the product, in any language
    assert edited.status_code == 200


async def test_changed_translations_are_seen_at_once(
    http: httpx2.AsyncClient, staff: httpx2.AsyncClient
) -> None:
    product = await add(staff, "A", translations={"de": {"name": "Tee"}})
    path = f"/products/{product['product_id']}"
    first = [await texts(http, path, header) for header in ("de", "fr")]

    patch = {"translations": {"de": None, "fr": {"name": "Thé"}}}
    changed = await staff.patch(path, json=patch, headers={"If-Match": "*"})
    second = [await texts(http, path, header) for header in ("de", "fr")]

    assert changed.status_code == 200
    assert first == [("Tee", "Green", "de"), ("Tea", "Green", None)]
    assert second == [("Tea", "Green", None), ("Thé", "Green", "fr")]


@in_memory
async def test_many_headers_share_one_cached_response(
    app: Gateway, http: httpx2.AsyncClient, staff: httpx2.AsyncClient
) -> None:
    product = await add(staff, "A", translations={"de": {"name": "Tee"}})
    path = f"/products/{product['product_id']}"
    await texts(http, path, "de")
    await texts(http, path)
    # without services, only the cache can respond
    inventory_of(app.container).catalogue.override(None)

    for number in range(50):
        assert (await texts(http, path, f"x{number},de;q=0.{number + 1}"))[0] == "Tee"
        assert (await texts(http, path, f"x{number}"))[0] == "Tea"


@in_memory
@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, ("Tea", "Green", "en")),
        ("en-US,en;q=0.9,de;q=0.8", ("Tea", "Green", "en")),
        ("nl, en;q=0.1, de;q=0.2", ("Tee", "Grün", "de")),
        ("nl", ("Tea", "Green", "en")),
        ("de, en;q=0.5", ("Tee", "Grün", "de")),
    ],
)
async def test_language_of_the_shop_is_one_of_the_languages(
    storage: dict[str, Any], tmp_path: Any, header: str | None, expected: Any
) -> None:
    settings = read_settings(data_dir=tmp_path, catalogue_language="en", **storage, **ADMIN)
    app = create_app(settings)
    async with app.lifespan(), client(app) as http, client(app) as staff:
        form = {"username": ADMIN["admin_email"], "password": ADMIN["admin_password"]}
        token = (await http.post("/token", data=form)).json()["access_token"]
        staff.headers["Authorization"] = f"Bearer {token}"
        # a translation into the language of the shop is not used
        translations = {**TRANSLATIONS, "en": {"name": "Other"}}
        product = await add(staff, "A", translations=translations)
        await add(staff, "B")

        for path in (f"/products/{product['product_id']}", "/products/by-sku/a"):
            assert [await texts(http, path, header) for _ in range(2)] == [expected] * 2
        page = await http.get("/products", headers={"Accept-Language": header or ""})
        assert page.headers["content-language"] == expected[2]
        assert {item["name"] for item in page.json()["items"]} == {"Tea", expected[0]}
        plain = await http.get("/products/by-sku/b", headers={"Accept-Language": "de"})
        assert plain.headers["content-language"] == "en"


@pytest.mark.parametrize("language", ["EN", "en_GB", "english", "*", "en,de", "en-" + "a" * 40])
def test_malformed_language_of_the_shop_is_rejected(language: str) -> None:
    with pytest.raises(SettingsError, match="MARKETHALL_CATALOGUE_LANGUAGE"):
        read_settings(storage="memory", catalogue_language=language)
