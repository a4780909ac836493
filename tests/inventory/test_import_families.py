"""The import and export of families, on each storage."""

import json
from typing import Any

import pytest

from markethall.inventory.catalogue.contract.families import FamilyDetail, NewFamily
from markethall.inventory.imports.contract import ImportFormat, ImportView, NoteKind
from tests.inventory.conftest import STAFF, InventoryApp, build_inventory_app, no_key
from tests.inventory.import_client import ImportClient, counts

HEADER = "label,slug,name,description,category,images,seo_title,seo_description,status"
SHIRT = f"""{HEADER}
Shirts/Men,mens-shirt,Men's shirt,Soft.,Clothing > Shirts,"https://i.example/1.jpg,https://i.example/2.jpg",\
Buy a shirt,A soft shirt.,active
"""
CATALOGUE = {
    "label": "Größe/Weite",
    "slug": "groesse",
    "name": "=Größe",
    "description": 'Two\nlines, "quoted"',
    "category": "Clothing > Shirts",
    "images": ["https://i.example/a,b.jpg"],
    "seo": {"title": "T", "description": "D"},
    "metadata": {"season": "spring", "b": "x"},
    "translations": {"de": {"name": "Hemd", "description": "Weich"}, "fr": {"name": "Chemise"}},
    "status": "archived",
}


@pytest.fixture(params=["memory", "sql"])
def inventory_app(request: pytest.FixtureRequest) -> InventoryApp:
    if request.param == "memory":
        return build_inventory_app("memory")
    return build_inventory_app("sql", request.getfixturevalue("postgres"))


@pytest.fixture
def import_client(inventory_app: InventoryApp) -> ImportClient:
    return ImportClient(inventory_app)


async def get_family(import_client: ImportClient, slug: str) -> FamilyDetail:
    return await import_client.inventory_app.container.families().get_family(STAFF, slug)


async def create_family(import_client: ImportClient, **fields: Any) -> FamilyDetail:
    command = NewFamily.model_validate(fields)
    return await import_client.inventory_app.container.families().create(STAFF, command, no_key())


def family_counts(done: ImportView) -> tuple[int, int, int, int]:
    """Return (read, families created, families updated, failed)."""
    rows = done.rows
    return rows.read, rows.families_created, rows.families_updated, rows.failed


async def test_families_are_created_with_all_fields(import_client: ImportClient) -> None:
    done = await import_client.import_to_end(SHIRT)

    assert (done.format, family_counts(done)) == (ImportFormat.FAMILIES, (1, 1, 0, 0))
    family = await get_family(import_client, "mens-shirt")
    assert (family.label, family.name, family.description) == ("Shirts/Men", "Men's shirt", "Soft.")
    assert family.category == "Clothing > Shirts"
    assert family.images == ("https://i.example/1.jpg", "https://i.example/2.jpg")
    assert (family.seo.title, family.seo.description) == ("Buy a shirt", "A soft shirt.")


async def test_reimport_of_families_changes_nothing(import_client: ImportClient) -> None:
    await import_client.import_to_end(SHIRT)
    before = await get_family(import_client, "mens-shirt")

    done = await import_client.import_to_end(SHIRT)

    assert family_counts(done) == (1, 0, 0, 0)
    assert await get_family(import_client, "mens-shirt") == before


async def test_missing_columns_and_cells_of_families(import_client: ImportClient) -> None:
    await import_client.import_to_end(SHIRT)

    done = await import_client.import_to_end("Slug;LABEL;description\n;mens-shirt;\n")

    assert family_counts(done) == (1, 0, 1, 0)
    assert dict(done.changed_fields) == {"family.description": 1}
    family = await get_family(import_client, "mens-shirt")
    assert (family.name, family.description, family.version) == ("Men's shirt", "", 2)


async def test_slug_is_changed_and_the_former_one_is_kept(import_client: ImportClient) -> None:
    await import_client.import_to_end(SHIRT)

    done = await import_client.import_to_end("label,slug\nshirts/men,shirt\n")

    assert family_counts(done) == (1, 0, 1, 0)
    for text in ("shirt", "mens-shirt"):
        assert (await get_family(import_client, text)).slug == "shirt"


@pytest.mark.parametrize(
    ("row", "field", "code"),
    [
        ("B,mens-shirt,B,active", "slug", "inventory.slug_taken"),
        ("B,b-01kb5xw3g5f5tq0000000000aa,B,active", "slug", "inventory.slug_taken"),
        ("B,Not a slug,B,active", "slug", "string_pattern_mismatch"),
        ("B,,\u200b,active", "name", "blank"),
        ("B,,B,sold", "status", "enum"),
        (",,B,active", "label", "too_short"),
        ("B,,N\x00L,active", "name", "value_error"),
        ("B,,B", "", "ragged"),
    ],
)
async def test_invalid_family_is_a_row_error(
    import_client: ImportClient, row: str, field: str, code: str
) -> None:
    await import_client.import_to_end(SHIRT)

    done = await import_client.import_to_end(f"label,slug,name,status\n{row}\nOK,,Fine,active\n")

    assert family_counts(done) == (2, 1, 0, 1)
    [error] = await import_client.errors(done)
    assert (error.line, error.field, error.code) == (2, field, code)


async def test_two_families_of_a_file_cannot_share_a_slug(import_client: ImportClient) -> None:
    done = await import_client.import_to_end("label,slug,name\nA,same,A\nB,same,B\n")

    assert family_counts(done) == (2, 1, 0, 1)
    assert (await get_family(import_client, "same")).label == "A"


@pytest.mark.parametrize("header", ["label,name,name", "label,colour", "label,seo_title"])
async def test_unusable_header_of_families_is_refused(
    import_client: ImportClient, header: str
) -> None:
    done = await import_client.import_to_end(f"{header}\n")

    assert done.failure is not None
    assert done.failure.code == "header"


async def test_ndjson_lines_with_a_label_are_families(import_client: ImportClient) -> None:
    product = {"sku": "S-1", "name": "S", "price": {"amount": 1, "currency": "EUR"}}
    lines = [CATALOGUE, product | {"family": "Größe/Weite"}, {"label": "x", "seo": {"a": 1}}]

    done = await import_client.import_to_end("\n".join(map(json.dumps, lines)), format="ndjson")

    assert family_counts(done) == (3, 1, 0, 1)
    assert (await get_family(import_client, "groesse")).name == "=Größe"
    [error] = await import_client.errors(done)
    assert (error.line, error.field) == (3, "/seo/a")


async def test_dry_run_lists_changed_fields_of_families(import_client: ImportClient) -> None:
    await import_client.import_to_end(SHIRT)
    file = SHIRT.replace("Men's shirt", "Shirt") + "New,,New,,,,,,active\n"

    dry = await import_client.import_to_end(file, dry_run=True)

    assert family_counts(dry) == (2, 1, 1, 0)
    [change] = await import_client.notes(dry, NoteKind.CHANGE)
    assert (change.line, change.field, change.message) == (
        2,
        "family.name",
        "\"Men's shirt\" -> 'Shirt'",
    )
    assert (await get_family(import_client, "mens-shirt")).name == "Men's shirt"


async def test_many_families_are_imported_in_batches(import_client: ImportClient) -> None:
    # a batch has at most 1000 rows
    rows = "".join(f"Label {n},slug-{n},Name {n},Home > Room {n % 7}\n" for n in range(1100))
    file = "label,slug,name,category\n" + rows

    done = await import_client.import_to_end(file)
    again = await import_client.import_to_end(file)

    assert (family_counts(done), family_counts(again)) == ((1100, 1100, 0, 0), (1100, 0, 0, 0))
    assert (await get_family(import_client, "slug-1099")).name == "Name 1099"
    assert len((await import_client.export_families()).splitlines()) == 1101


async def test_round_trip_changes_nothing(import_client: ImportClient) -> None:
    await create_family(import_client, **CATALOGUE)
    await create_family(import_client, name="Without products")
    price = {"amount": 1250, "currency": "EUR"}
    for number, family in enumerate(["Größe/Weite", "Only Products", "only  products", None]):
        await import_client.inventory_app.product(
            f"P-{number}", family=family, price=price, category="Home", options={"n": str(number)}
        )
    families, products = await import_client.export_families(), await import_client.export()
    target = ImportClient(build_inventory_app("memory"))

    copied = [await target.import_to_end(file) for file in (families, products)]
    unchanged = [await import_client.import_to_end(file) for file in (families, products)]

    assert [family_counts(done) for done in copied] == [(3, 3, 0, 0), (4, 0, 0, 0)]
    assert counts(copied[1]) == (4, 4, 0, 0, 0)
    assert await target.export_families() == families
    assert await target.export() == products
    assert [family_counts(done) for done in unchanged] == [(3, 0, 0, 0), (4, 0, 0, 0)]
    assert counts(unchanged[1]) == (4, 0, 0, 4, 0)
    assert await import_client.export_families() == families
    assert await import_client.export() == products


async def test_products_may_be_imported_before_their_families(import_client: ImportClient) -> None:
    await create_family(import_client, **CATALOGUE)
    await import_client.inventory_app.product("P-1", family="Größe/Weite")
    families, products = await import_client.export_families(), await import_client.export()
    target = ImportClient(build_inventory_app("memory"))

    for file in (products, families):
        await target.import_to_end(file)

    assert await target.export_families() == families
    assert await target.export() == products
