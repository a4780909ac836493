"""Test which existing products, and which of their fields, an import changes."""

import pytest

from markethall.inventory.catalogue.contract.fields import ProductStatus
from markethall.inventory.catalogue.contract.products import NewProduct, ProductView
from markethall.inventory.imports.contract import NoteKind
from markethall.inventory.imports.domain.foreign_values import stable_sku
from tests.inventory.conftest import STAFF, InventoryApp, build_inventory_app, no_key
from tests.inventory.import_client import ImportClient, counts

HEADER = (
    "Handle,Title,Body (HTML),Vendor,Type,Tags,Option1 Name,Option1 Value,Variant SKU,"
    "Variant Grams,Variant Inventory Qty,Variant Price,Variant Compare At Price,Variant Barcode,"
    "Image Src,Status\n"
)
LAMPS = f"""{HEADER}\
lamp,Table lamp,<p>Warm</p>,Acme,Lamps,"home, sale",Colour,Red,LAMP-R,900,7,79.90,99.90,4006,\
https://i.example/1.jpg,draft
lamp,,,,,,,Blue,LAMP-B,900,4,79.90,,,,
"""
TOPS = f"""{HEADER}\
top,Top,Soft,,Women,new,Size,Small,,,3,60,,,,archived
top,,,,,,,Medium,,,4,60,,,,
"""


@pytest.fixture(params=["memory", "sql"])
def inventory_app(request: pytest.FixtureRequest) -> InventoryApp:
    if request.param == "memory":
        return build_inventory_app("memory")
    return build_inventory_app("sql", request.getfixturevalue("postgres"))


@pytest.fixture
def import_client(inventory_app: InventoryApp) -> ImportClient:
    return ImportClient(inventory_app)


async def _by_sku(import_client: ImportClient, sku: str) -> ProductView:
    return await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, sku)


async def _family(import_client: ImportClient, family: str) -> dict[str, tuple[int, str]]:
    """Return (on hand, status) of all products of a family, by the values of their options."""
    store = import_client.inventory_app.container.persistence().database
    async with store.read_session() as reads:
        rows = await reads.list_products_with_stock(None, 1000)
    return {
        "/".join(product.options.values()): (on_hand, product.status.value)
        for product, on_hand in rows
        if product.family == family
    }


def _comparable(product: ProductView) -> dict[str, object]:
    return product.model_dump(exclude={"version", "updated_at"})


async def test_shopify_price_list_changes_only_prices(import_client: ImportClient) -> None:
    await import_client.import_to_end(LAMPS)
    before = await _by_sku(import_client, "LAMP-R")

    done = await import_client.import_to_end(
        "Handle,Title,Variant SKU,Variant Price\nlamp,Table lamp,LAMP-R,69.90\nlamp,,LAMP-B,69.90\n"
    )

    assert counts(done) == (2, 0, 2, 0, 0)
    assert dict(done.changed_fields) == {"price": 2}
    after = await _by_sku(import_client, "LAMP-R")
    assert (after.price.amount, after.status) == (6990, ProductStatus.DRAFT)
    price = before.price.model_copy(update={"amount": 6990})
    assert _comparable(after) == _comparable(before) | {"price": price.model_dump()}


async def test_shopify_inventory_file_changes_only_stock(import_client: ImportClient) -> None:
    await import_client.import_to_end(TOPS)
    rows = (
        "Handle,Title,Option1 Name,Option1 Value,SKU,Location,Available,On hand\n"
        "top,Another name,Size,Small,,Shop,9,9\ntop,Another name,Size,Medium,,Shop,5,6\n"
        "top,Another name,Size,Medium,,Annex,2,2\ntop,Another name,Size,Small,,Annex,,not stocked\n"
    )

    left = await import_client.import_to_end(rows)
    done = await import_client.import_to_end(rows, with_stock=True)

    assert (left.rows.unchanged, left.rows.stock_skipped) == (2, 2)
    assert (done.rows.updated, done.rows.stock_changed) == (2, 2)
    assert dict(done.changed_fields) == {"on_hand": 2}
    assert await _family(import_client, "top") == {
        "Small": (9, "archived"),
        "Medium": (8, "archived"),
    }


async def test_attributes_of_other_sources_stay(import_client: ImportClient) -> None:
    app = import_client.inventory_app
    fields = {"attributes": {"material": "steel", "vendor": "Old"}, "family": "lamp"}
    price = {"amount": 1, "currency": "EUR"}
    command = {"sku": "LAMP-R", "name": "Lamp", "price": price, "options": {"Colour": "Red"}}
    await app.catalogue.create(STAFF, NewProduct.model_validate(command | fields), no_key())

    await import_client.import_to_end(LAMPS)

    changed = await _by_sku(import_client, "LAMP-R")
    assert dict(changed.attributes) == {"material": "steel", "vendor": "Acme"}


async def test_empty_status_leaves_it(import_client: ImportClient) -> None:
    await import_client.import_to_end(LAMPS)

    done = await import_client.import_to_end(LAMPS.replace(",draft", ","))

    assert counts(done) == (2, 0, 0, 2, 0)


async def test_dry_run_lists_changed_fields(import_client: ImportClient) -> None:
    await import_client.import_to_end(LAMPS)
    changed = LAMPS.replace("79.90,99.90", "69.90,99.90").replace(",draft", ",active")

    dry = await import_client.import_to_end(changed, dry_run=True)
    done = await import_client.import_to_end(changed)

    assert dict(dry.changed_fields) == dict(done.changed_fields) == {"price": 1, "status": 2}
    changes = await import_client.notes(dry, NoteKind.CHANGE)
    assert [(change.line, change.field, change.message) for change in changes] == [
        (2, "price", "'79.90 EUR' -> '69.90 EUR'"),
        (2, "status", "'draft' -> 'active'"),
        (3, "status", "'draft' -> 'active'"),
    ]
    assert await import_client.notes(done, NoteKind.CHANGE) == []


async def test_stock_of_existing_products_changes_only_when_asked(
    import_client: ImportClient,
) -> None:
    app = import_client.inventory_app
    product = await app.product("TEA-1", stock=10)
    file = await import_client.export()
    await app.adjust(product.product_id, delta=-2)

    kept = await import_client.import_to_end(file)
    assert await app.main_stock(product.product_id) == (8, 0)
    done = await import_client.import_to_end(file, with_stock=True)

    assert (kept.rows.unchanged, kept.rows.stock_skipped, kept.with_stock) == (1, 1, False)
    assert (done.rows.updated, done.rows.stock_changed, done.with_stock) == (1, 1, True)
    assert await app.main_stock(product.product_id) == (10, 0)


async def test_same_sku_of_two_variants_is_an_error(import_client: ImportClient) -> None:
    rows = (
        "tee,Tee,,,,,Size,S,TEE,,3,10,,,,active\ntee,,,,,,,M,tee,,5,12,,,,\n"
        "tee,,,,,,,L,TEE-L,,1,12,,,,\n"
    )

    for _ in range(2):
        done = await import_client.import_to_end(HEADER + rows)

        assert done.rows.failed == 1
        assert [(e.line, e.field, e.code, e.message) for e in await import_client.errors(done)] == [
            (
                3,
                "Variant SKU",
                "inventory.sku_taken",
                "tee of Tee (Size: M) is the SKU of Tee (Size: S) in line 2",
            )
        ]
        assert await _family(import_client, "tee") == {"S": (3, "active"), "L": (1, "active")}


async def test_derived_sku_never_meets_a_real_one(import_client: ImportClient) -> None:
    hat = "hat,Straw hat,,,,,,,,,1,20,,,,active\n"
    cap = "winter-cap,Winter cap,,,,,,,HAT,,5,35,,,,active\n"

    first = await import_client.import_to_end(HEADER + hat + cap)
    second = await import_client.import_to_end(HEADER + cap)

    assert (first.rows.created, first.rows.failed, second.rows.failed) == (1, 1, 1)
    for done, place in ((first, " in line 2"), (second, "")):
        [error] = await import_client.errors(done)
        assert error.message == f"HAT of Winter cap is the SKU of Straw hat{place}"
    assert (await _by_sku(import_client, "hat")).name == "Straw hat"


async def test_two_rows_of_one_variant_with_two_skus_are_an_error(
    import_client: ImportClient,
) -> None:
    rows = "tee,Tee,,,,,Size,S,T-1,,3,10,,,,active\ntee,,,,,,,S,T-2,,5,12,,,,\n"

    done = await import_client.import_to_end(HEADER + rows)

    assert counts(done) == (2, 1, 0, 0, 1)
    [error] = await import_client.errors(done)
    assert (error.line, error.code) == (3, "duplicate_variant")
    assert error.message == "Tee (Size: S) is in line 2 too, with the SKU T-1"


async def test_sku_of_another_handle_is_an_error(import_client: ImportClient) -> None:
    await import_client.import_to_end(HEADER + "a,One,,,,,,,X-1,,3,10,,,,active\n")

    done = await import_client.import_to_end(HEADER + "b,Two,,,,,,,x-1,,3,10,,,,active\n")

    assert counts(done) == (1, 0, 0, 0, 1)
    assert (await _by_sku(import_client, "X-1")).name == "One"


async def test_product_without_family_is_found_by_sku(import_client: ImportClient) -> None:
    app = import_client.inventory_app
    existing = await app.product("lamp-r", stock=3)

    done = await import_client.import_to_end(LAMPS)

    assert (done.rows.created, done.rows.updated) == (1, 1)
    found = await _by_sku(import_client, "LAMP-R")
    assert (found.product_id, found.family) == (existing.product_id, "lamp")


async def test_sku_added_later_updates_the_variant(import_client: ImportClient) -> None:
    row = "cap,Cap,,,,,Size,S,{},,3,9,,,,active\n"
    await import_client.import_to_end(HEADER + row.format(""))

    done = await import_client.import_to_end(HEADER + row.format("CAP-S"))
    again = await import_client.import_to_end(HEADER + row.format(""))

    assert counts(done) == (1, 0, 1, 0, 0)
    assert dict(done.changed_fields) == {"sku": 1}
    assert counts(again) == (1, 0, 0, 1, 0)
    assert len(await _family(import_client, "cap")) == 1
    assert (await _by_sku(import_client, "CAP-S")).family == "cap"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Size,S,CAP-S", "Size,Small,CAP-S"),
        ("Size,S,", "Width,S,"),
        ("Size,S,", "Width,S,CAP-S"),
        ("Size,S,CAP-S", "size,s,CAP-S"),
        ("Size,S,", "SIZE,s,"),
    ],
)
async def test_renamed_option_updates_the_variant(
    import_client: ImportClient, before: str, after: str
) -> None:
    row = "cap,Cap,,,,,{},,3,9,,,,active\n"
    await import_client.import_to_end(HEADER + row.format(before))

    done = await import_client.import_to_end(HEADER + row.format(after))

    assert (done.rows.created, done.rows.failed) == (0, 0)
    assert len(await _family(import_client, "cap")) == 1


async def test_row_that_may_be_several_products_is_an_error(import_client: ImportClient) -> None:
    await import_client.import_to_end(TOPS)
    await import_client.import_to_end(HEADER + "cap,Cap,,,,,,,,,3,9,,,,active\n")

    done = await import_client.import_to_end("Handle,Title,Variant Price\ntop,Top,1\ncap,Cap,2\n")

    assert counts(done) == (2, 0, 1, 0, 1)
    [error] = await import_client.errors(done)
    assert (error.line, error.code) == (2, "ambiguous")


async def test_missing_variants_of_the_families_in_the_file_are_archived(
    import_client: ImportClient,
) -> None:
    other = "hat,Hat,,,,,Size,S,,,3,9,,,,active\n"
    await import_client.import_to_end(TOPS.replace("archived", "active") + other)
    file = TOPS.replace("archived", "active").replace("Medium", "Large")

    dry = await import_client.import_to_end(file, missing="archive", dry_run=True)
    assert await _family(import_client, "top") == {"Small": (3, "active"), "Medium": (4, "active")}
    done = await import_client.import_to_end(file, missing="archive")
    again = await import_client.import_to_end(file, missing="archive")

    assert (dry.rows.archived, done.rows.archived, again.rows.archived) == (1, 1, 0)
    [change] = await import_client.notes(dry, NoteKind.CHANGE)
    assert (change.field, change.code) == ("status", "archived")
    sku = stable_sku("top", {"Size": "Medium"})
    assert change.message == (
        f"'active' -> 'archived': Top (Size: Medium), {sku}, is not in the file"
    )
    assert await _family(import_client, "top") == {
        "Small": (3, "active"),
        "Large": (4, "active"),
        "Medium": (4, "archived"),
    }
    assert await _family(import_client, "hat") == {"S": (3, "active")}


async def test_missing_products_are_counted_over_the_whole_file(
    import_client: ImportClient,
) -> None:
    rows = [f"N-{n},Name,1,f{n % 2}\n" for n in range(2300)]
    header = "sku,name,price,family\n"
    await import_client.import_to_end(header + "".join(rows) + "N-x,Name,1,f0\nN-y,Name,1,f9\n")

    done = await import_client.import_to_end(header + "".join(rows), missing="archive")

    assert done.rows.archived == 1
    assert (await _by_sku(import_client, "N-x")).status == ProductStatus.ARCHIVED
    assert (await _by_sku(import_client, "N-y")).status == ProductStatus.ACTIVE


async def test_nothing_missing_is_archived_if_a_row_failed(import_client: ImportClient) -> None:
    await import_client.import_to_end(TOPS.replace("archived", "active"))

    done = await import_client.import_to_end(
        TOPS.replace("archived", "active").replace("Medium,,,4,60", "Medium,,,4,cheap"),
        missing="archive",
    )

    assert (done.rows.failed, done.rows.archived) == (1, 0)
    assert await _family(import_client, "top") == {"Small": (3, "active"), "Medium": (4, "active")}
