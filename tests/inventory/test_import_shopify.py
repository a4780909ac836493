"""The import of the product CSV that Shopify exports."""

from pathlib import Path

import pytest

from markethall.cli.import_command import ImportResult
from markethall.inventory.catalogue.contract.fields import ProductStatus
from markethall.inventory.imports.contract import ImportFormat
from markethall.inventory.imports.domain.foreign_values import html_to_text, stable_sku
from tests.inventory.conftest import STAFF, build_inventory_app
from tests.inventory.import_client import ImportClient, counts

DOCUMENT = Path("docs/importing.md").read_text()
SAMPLE = Path("docs/samples/shopify.csv").read_bytes()
HEADER = (
    "Handle,Title,Body (HTML),Vendor,Type,Tags,Published,Option1 Name,Option1 Value,Option2 Name,"
    "Option2 Value,Variant SKU,Variant Grams,Variant Inventory Qty,Variant Price,"
    "Variant Compare At Price,Variant Barcode,Image Src,Status"
)
JUMPER = f"""{HEADER}
jumper,Jumper,"<p>Warm &amp; soft.</p><ul><li>wool</li></ul>",Loom,Knitwear,"wool, winter",true,\
Size,S,Colour,Red,,400,3,49.90,59.90,'4006381333931,https://img.example/1.jpg,active
jumper,,,,,,,,M,,Red,'JUMPER-M,400,-2,49.90,,,https://img.example/2.jpg,
jumper,,,,,,,,,,,,,,,,,https://img.example/3.jpg,
mug,Mug,Plain.,,,,false,Title,Default Title,,,,,,9,,,,active
"""
SMALL = stable_sku("jumper", {"Size": "S", "Colour": "Red"})


@pytest.fixture(params=["memory", "sql"])
def import_client(request: pytest.FixtureRequest) -> ImportClient:
    if request.param == "memory":
        return ImportClient(build_inventory_app("memory"))
    return ImportClient(build_inventory_app("sql", request.getfixturevalue("postgres")))


async def test_sample_is_imported_as_documented(import_client: ImportClient) -> None:
    done = await import_client.import_to_end(SAMPLE)

    lines = list(ImportResult(done, tuple(await import_client.errors(done))).to_lines())
    assert "\n".join(lines) in DOCUMENT


async def test_variants_become_a_family_with_options(import_client: ImportClient) -> None:
    done = await import_client.import_to_end(JUMPER)

    assert done.format == ImportFormat.SHOPIFY
    assert counts(done) == (4, 3, 0, 0, 0)
    small = await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, SMALL)
    medium = await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, "JUMPER-M")
    for product, size in ((small, "S"), (medium, "M")):
        assert dict(product.options) == {"Size": size, "Colour": "Red"}
        assert (product.family, product.name, product.category) == ("jumper", "Jumper", "Knitwear")
        assert product.description == "Warm & soft.\nwool"
        assert product.tags == ("wool", "winter")
        assert dict(product.attributes) == {"vendor": "Loom"}
        assert product.images == tuple(f"https://img.example/{n}.jpg" for n in (1, 2, 3))
        assert (product.price.amount, product.price.currency) == (4990, "EUR")
    assert (small.available, medium.available) == (3, 0)
    assert (small.barcode, small.compare_at, small.weight_grams) == ("4006381333931", 5990, 400)
    assert (medium.barcode, medium.compare_at, medium.weight_grams) == (None, None, 400)


async def test_product_without_options_is_a_family_of_one(import_client: ImportClient) -> None:
    await import_client.import_to_end(JUMPER, currency="JPY")

    mug = await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, "mug")
    assert (mug.family, dict(mug.options)) == ("mug", {})
    assert (mug.price.amount, mug.price.currency) == (9, "JPY")
    assert mug.status == ProductStatus.DRAFT


async def test_reimport_changes_nothing(import_client: ImportClient) -> None:
    await import_client.import_to_end(JUMPER)

    done = await import_client.import_to_end(JUMPER)

    assert counts(done) == (4, 0, 0, 3, 0)


async def test_invalid_row_does_not_split_family(import_client: ImportClient) -> None:
    rows = JUMPER.splitlines()
    data = "\n".join([*rows[:2], "jumper,ragged", *rows[2:]])

    done = await import_client.import_to_end(data)

    assert (done.rows.failed, done.rows.created) == (1, 3)
    assert [(e.line, e.code) for e in await import_client.errors(done)] == [(3, "ragged")]


async def test_handle_with_too_many_rows_uses_bounded_memory(import_client: ImportClient) -> None:
    rows = [f"wall,Wall,,,,,,Number,{n},,,,,,1,,,,active" for n in range(3000)]
    data = "\n".join([HEADER, *rows, "mug,Mug,,,,,,,,,,,,,9,,,,active"])

    done = await import_client.import_to_end(data, chunk_bytes=65_536)

    assert counts(done) == (3001, 2501, 0, 0, 500)
    errors = await import_client.errors(done)
    assert {error.code for error in errors} == {"too_many_rows"}
    assert errors[0].line == 2502


async def test_family_is_complete_at_any_chunk_boundary(import_client: ImportClient) -> None:
    """The upload is stored in parts. The file is so long that some parts end inside a family."""
    families = [
        f"h{n},Name {n},{'x' * 9000},,,,,Size,{size},,,,,,1,,,,active"
        for n in range(200)
        for size in ("S", "M", "L")
    ]
    rows = [
        row if row.endswith("S,,,,,,1,,,,active") else _without_product_fields(row)
        for row in families
    ]

    done = await import_client.import_to_end("\n".join([HEADER, *rows]))

    assert counts(done) == (600, 600, 0, 0, 0)


def _without_product_fields(row: str) -> str:
    handle, _, _, rest = row.split(",", 3)
    return f"{handle},,,{rest}"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("no markup", "no markup"),
        ("a < b &lt; c", "a < b < c"),
        ("<p>One</p><p>Two<br>three</p>", "One\nTwo\nthree"),
        ("<style>p{}</style>seen<script>alert(1)</script>", "seen"),
        ("<p unclosed", "<p unclosed"),
    ],
)
def test_html_is_converted_to_text(html: str, text: str) -> None:
    assert html_to_text(html) == text


def test_generated_sku_is_stable_and_unique() -> None:
    skus = {
        stable_sku(handle, options)
        for handle in ("a", "a-b", "größe", "größé", "x" * 80, "x" * 81)
        for options in ({}, {"o": "b"}, {"o": "1.5"}, {"o": "1 5"}, {"o": "b", "p": "c"})
    }

    assert len(skus) == 30
    assert all(len(sku) <= 64 for sku in skus)
    assert stable_sku("jumper", {"Size": "s"}) == "jumper.s"


async def test_variants_that_differ_only_in_case_are_distinct(
    import_client: ImportClient,
) -> None:
    rows = [f"screw,Screw,,,,,,Thread,{thread},,,,,,1,,,,active" for thread in ("m", "M")]

    done = await import_client.import_to_end("\n".join([HEADER, *rows]))

    assert counts(done) == (2, 2, 0, 0, 0)


@pytest.mark.parametrize("unusual", [b"\x00", b"\xe9"])
async def test_unusual_handle_with_too_many_rows_does_not_stop_import(
    import_client: ImportClient, unusual: bytes
) -> None:
    rows = [b"wall" + unusual + b",Wall,,,,,,Number,%d,,,,,,1,,,,active" % n for n in range(2600)]
    data = b"\n".join([HEADER.encode(), *rows, b"mug,Mug,,,,,,,,,,,,,9,,,,active"])

    done = await import_client.import_to_end(data, chunk_bytes=65_536)

    assert counts(done) == (2601, 1, 0, 0, 2600)


async def test_long_tag_that_is_not_utf8_does_not_stop_import(import_client: ImportClient) -> None:
    tag = "frühling; " * 20
    rows = [f"tea,Tea,,,,{tag},,,,,,,,,1,,,,active", "mug,Mug,,,,,,,,,,,,,9,,,,active"]

    done = await import_client.import_to_end("\n".join([HEADER, *rows]).encode("latin-1"))

    assert counts(done) == (2, 1, 0, 0, 1)
    [error] = await import_client.errors(done)
    assert (error.line, error.field, error.code) == (2, "Tags", "encoding")
