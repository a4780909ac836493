"""The import of the product CSV that WooCommerce exports."""

import csv
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from markethall.cli.import_command import ImportResult
from markethall.inventory.catalogue.contract.fields import InventoryPolicy, ProductStatus
from markethall.inventory.catalogue.contract.products import NewProduct, ProductView
from markethall.inventory.imports.contract import ImportFormat, ImportView, NoteKind
from tests.inventory.conftest import STAFF, build_inventory_app, no_key
from tests.inventory.import_client import ImportClient, counts

DOCUMENT = Path("docs/importing.md").read_text()
SAMPLE = Path("docs/samples/woocommerce.csv").read_bytes()
HOODIE = "kapuzenpullover-kueste-501"

Cells = dict[str, str]


@pytest.fixture(params=["memory", "sql"])
def import_client(request: pytest.FixtureRequest) -> ImportClient:
    if request.param == "memory":
        return ImportClient(build_inventory_app("memory"))
    return ImportClient(build_inventory_app("sql", request.getfixturevalue("postgres")))


def woo_csv(*rows: Cells, delimiter: str = ",") -> str:
    """Write the rows with the columns that they have, in the order of their first use."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, restval="", delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def simple(sku: str = "CAP", price: str = "9.50", **cells: str) -> Cells:
    return {"ID": "1", "Type": "simple", "SKU": sku, "Name": "Cap", "Regular price": price} | cells


def variable(number: int, sku: str = "", **cells: str) -> Cells:
    fields = {"ID": str(number), "Type": "variable", "SKU": sku, "Name": f"Shirt {number}"}
    return fields | {"Attribute 1 name": "Size", "Attribute 1 value(s)": "S, M"} | cells


def variation(number: int, parent: str, size: str, sku: str = "", **cells: str) -> Cells:
    fields = {"ID": str(number), "Type": "variation", "SKU": sku, "Name": f"Shirt - {size}"}
    option = {"Attribute 1 name": "Size", "Attribute 1 value(s)": size}
    return fields | {"Parent": parent, "Regular price": "20"} | option | cells


async def by_sku(import_client: ImportClient, sku: str) -> ProductView:
    return await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, sku)


async def error_codes(import_client: ImportClient, done: ImportView) -> list[tuple[int, str, str]]:
    return [(error.line, error.field, error.code) for error in await import_client.errors(done)]


async def warning_codes(
    import_client: ImportClient, done: ImportView
) -> list[tuple[int, str, str]]:
    notes = await import_client.notes(done, NoteKind.WARNING)
    return [(note.line, note.field, note.code) for note in notes]


async def test_sample_is_imported_as_documented(import_client: ImportClient) -> None:
    done = await import_client.import_to_end(SAMPLE)

    lines = list(ImportResult(done, tuple(await import_client.errors(done))).to_lines())
    assert done.format == ImportFormat.WOOCOMMERCE
    assert "\n".join(lines) in DOCUMENT


async def test_variations_become_a_family_with_options(import_client: ImportClient) -> None:
    await import_client.import_to_end(SAMPLE)

    small = await by_sku(import_client, "KAPUZE-S-BLAU")
    medium = await by_sku(import_client, "woo-503")
    sand = await by_sku(import_client, "KAPUZE-M-SAND")
    for product, size, colour in (
        (small, "S", "Nachtblau"),
        (medium, "M", "Nachtblau"),
        (sand, "M", "Sand"),
    ):
        assert dict(product.options) == {"Größe": size, "Farbe": colour}
        assert (product.family, product.name) == (HOODIE, "Kapuzenpullover „Küste“")
        assert product.category == "Bekleidung > Pullover"
        assert product.tags == ("Bio", "Herbst, Winter")
        assert dict(product.attributes) == {
            "Material": "85 % Baumwolle, 15 % Polyester",
            "vendor": "Deichkind Textil",
        }
        assert product.description == (
            "Weich & warm.\nAus Bio-Baumwolle, innen angeraut.\nKängurutasche\nRippbündchen"
        )
    assert [image.rpartition("/")[2] for image in small.images] == [
        "kapuze-blau.jpg",
        "kapuze-1.jpg",
        "kapuze-2.jpg",
    ]
    assert (small.barcode, small.low_stock_threshold, small.available) == ("4006381333931", 2, 7)
    assert (small.weight_grams, sand.weight_grams) == (620, 700)
    assert (small.price.amount, sand.price.amount) == (5990, 105990)
    assert sand.inventory_policy == InventoryPolicy.CONTINUE


async def test_variation_before_its_product_is_imported(import_client: ImportClient) -> None:
    await import_client.import_to_end(SAMPLE)

    belt = await by_sku(import_client, "woo-520")

    assert (belt.family, belt.name) == ("lederguertel-521", "Ledergürtel")
    assert (belt.category, belt.description) == ("Accessoires > Gürtel", "Pflanzlich gegerbt.")
    assert dict(belt.options) == {"Länge": "90 cm"}


async def test_simple_products_have_no_family(import_client: ImportClient) -> None:
    await import_client.import_to_end(SAMPLE)

    cup = await by_sku(import_client, "TASSE-MOEWE")
    voucher = await by_sku(import_client, "GUTSCHEIN-25")
    pot = await by_sku(import_client, "woo-532")

    assert (cup.family, dict(cup.options)) == (None, {})
    # hidden attributes are not for customers
    assert dict(cup.attributes) == {"Material": "Steingut"}
    assert (cup.price.amount, cup.compare_at, cup.weight_grams) == (1190, 1450, 330)
    assert (voucher.category, voucher.track_inventory, voucher.tax_class) == (None, False, "zero")
    assert (pot.status, pot.tax_class) == (ProductStatus.DRAFT, "reduced")


async def test_sale_with_dates_is_an_additional_price(import_client: ImportClient) -> None:
    await import_client.import_to_end(SAMPLE)
    app = import_client.inventory_app

    before = await by_sku(import_client, "woo-503")
    app.clock.now = datetime(2026, 11, 30, 23, 59, tzinfo=UTC)
    during = await by_sku(import_client, "woo-503")
    app.clock.now = datetime(2026, 12, 1, tzinfo=UTC)
    after = await by_sku(import_client, "woo-503")

    assert [(view.price.amount, view.compare_at) for view in (before, during, after)] == [
        (5990, None),
        (4990, 5990),
        (5990, None),
    ]


async def test_reimport_changes_nothing(import_client: ImportClient) -> None:
    await import_client.import_to_end(SAMPLE)

    done = await import_client.import_to_end(SAMPLE)

    assert counts(done) == (12, 0, 0, 7, 3)


async def test_row_is_at_any_chunk_boundary(import_client: ImportClient) -> None:
    rows: list[Cells] = []
    for number in range(100, 400, 3):
        rows += [
            variation(number + 1, f"id:{number}", "S"),
            variable(number, Description="x" * 9000),
            variation(number + 2, f"id:{number}", "M"),
        ]

    done = await import_client.import_to_end(woo_csv(*rows))

    assert counts(done) == (300, 200, 0, 0, 0)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
async def test_english_file_with_any_delimiter_is_read(
    import_client: ImportClient, delimiter: str
) -> None:
    file = woo_csv(simple("CAP-1", "9,50"), delimiter=delimiter)

    done = await import_client.import_to_end(file)

    assert (done.format, counts(done)) == (ImportFormat.WOOCOMMERCE, (1, 1, 0, 0, 0))
    assert (await by_sku(import_client, "CAP-1")).price.amount == 950


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("19", 1900),
        ("19.9", 1990),
        ("19,90", 1990),
        ("1.299,90", 129_990),
        ("1,299.90", 129_990),
        ("1.299.000", 129_900_000),
        ("0,5000", 50),
        ("1.299", None),
        ("1,299", None),
        ("1.29.90", None),
        ("1,29,9.0", None),
        ("19,999", None),
        ("-5", None),
        ("€ 5", None),
        ("9" * 40, None),
    ],
)
async def test_amounts_have_a_comma_or_a_point(
    import_client: ImportClient, text: str, amount: int | None
) -> None:
    done = await import_client.import_to_end(woo_csv(simple(price=text)))

    if amount is None:
        assert await error_codes(import_client, done) == [(2, "Regular price", "invalid")]
    else:
        assert (await by_sku(import_client, "CAP")).price.amount == amount


@pytest.mark.parametrize(
    ("column", "text", "grams"),
    [
        ("Weight (kg)", "0,25", 250),
        ("Weight (kg)", "1.234", 1234),
        ("Weight (g)", "80", 80),
        ("weight  (LBS)", "2", 907),
        ("Gewicht (oz)", "1", 28),
        ("Weight (stone)", "1", None),
        ("Weight (kg)", "heavy", None),
        ("Weight (kg)", "-1", None),
        ("Weight (kg)", "99999999999999", None),
    ],
)
async def test_weight_is_in_the_unit_of_its_column(
    import_client: ImportClient, column: str, text: str, grams: int | None
) -> None:
    done = await import_client.import_to_end(woo_csv(simple(**{column: text})))

    if grams is None:
        [(line, field, _)] = await error_codes(import_client, done)
        assert (line, field) == (2, column)
    else:
        assert (await by_sku(import_client, "CAP")).weight_grams == grams


@pytest.mark.parametrize(
    ("cells", "on_hand", "tracked", "policy"),
    [
        ({"Stock": "4", "In stock?": "1"}, 4, True, "deny"),
        ({"Stock": "4.0"}, 4, True, "deny"),
        ({"Stock": "2,5"}, 2, True, "deny"),
        ({"Stock": "-3", "Backorders allowed?": "1"}, 0, True, "continue"),
        ({"Stock": "'-3"}, 0, True, "deny"),
        ({"Stock": "0", "Backorders allowed?": "notify"}, 0, True, "continue"),
        ({"Stock": "", "In stock?": "1"}, 0, False, "deny"),
        ({"Stock": "", "In stock?": "0"}, 0, True, "deny"),
        ({"Stock": "", "In stock?": "backorder"}, 0, True, "continue"),
        ({"In stock?": "1"}, 0, True, "deny"),
    ],
)
async def test_stock_columns_decide_what_can_be_sold(
    import_client: ImportClient, cells: Cells, on_hand: int, *, tracked: bool, policy: str
) -> None:
    await import_client.import_to_end(woo_csv(simple(**cells)))

    product = await by_sku(import_client, "CAP")
    stock = await import_client.inventory_app.main_stock(product.product_id)
    assert (stock[0], product.track_inventory, product.inventory_policy) == (
        on_hand,
        tracked,
        policy,
    )


@pytest.mark.parametrize(
    ("cells", "status"),
    [
        ({"Published": "1"}, "active"),
        ({"Published": "0"}, "draft"),
        ({"Published": "-1"}, "draft"),
        ({"Published": "'-1"}, "draft"),
        ({"Published": "2"}, "draft"),
        ({"Published": "soon"}, "draft"),
        ({"Published": "1", "Visibility in catalog": "search"}, "active"),
        ({"Published": "1", "Visibility in catalog": "hidden"}, "draft"),
        ({"Published": ""}, "active"),
    ],
)
async def test_published_decides_the_status(
    import_client: ImportClient, cells: Cells, status: str
) -> None:
    await import_client.import_to_end(woo_csv(simple(**cells)))

    assert (await by_sku(import_client, "CAP")).status == status


async def test_variation_of_a_draft_is_a_draft(import_client: ImportClient) -> None:
    rows = [
        variable(10, "A", Published="-1"),
        variation(11, "A", "S", "A-S", Published="1"),
        variable(20, "B", Published="1"),
        variation(21, "B", "S", "B-S", Published="1"),
        variation(22, "B", "M", "B-M", Published="0"),
    ]

    await import_client.import_to_end(woo_csv(*rows))

    found = [(await by_sku(import_client, sku)).status for sku in ("A-S", "B-S", "B-M")]
    assert found == ["draft", "active", "draft"]


@pytest.mark.parametrize(
    ("cells", "field", "code"),
    [
        ({"Type": "grouped"}, "Type", "unsupported_type"),
        ({"Type": "external"}, "Type", "unsupported_type"),
        ({"Type": "subscription"}, "Type", "unsupported_type"),
        ({"Type": "variation", "Parent": ""}, "Parent", "missing"),
        ({"Type": "variation", "Parent": "id:99"}, "Parent", "parent_missing"),
        ({"Type": "variation", "Parent": "NONE"}, "Parent", "parent_missing"),
        ({"Name": ""}, "Name", "missing"),
        ({"Name": "\u200b"}, "Name", "blank"),
        ({"Name": "N\x00L"}, "Name", "value_error"),
        ({"Regular price": ""}, "Regular price", "missing"),
        ({"Regular price": "", "Sale price": "3"}, "Sale price", "price_missing"),
        ({"SKU": "", "ID": "", "Name": ""}, "SKU", "missing"),
        ({"SKU": "A\tB"}, "SKU", "not_printable"),
        ({"Stock": "many"}, "Stock", "invalid"),
        ({"Stock": "99999999999999"}, "Stock", "less_than_equal"),
        ({"Low stock amount": "few"}, "Low stock amount", "invalid"),
        ({"Tax class": "x" * 51}, "Tax class", "too_long"),
        (
            {"Sale price": "3", "Date sale price ends": "soon"},
            "Date sale price ends",
            "invalid",
        ),
        (
            {"Sale price": "3", "Date sale price ends": "2026-02-30"},
            "Date sale price ends",
            "invalid",
        ),
        (
            {"Sale price": "3", "Date sale price ends": "9999-12-31"},
            "Date sale price ends",
            "invalid",
        ),
        (
            {
                "Sale price": "3",
                "Date sale price starts": "2026-12-01",
                "Date sale price ends": "2026-11-01",
            },
            "Date sale price ends",
            "window",
        ),
        (
            {"Attribute 7 name": "Fit", "Attribute 7 value(s)": "a\x00"},
            "Attribute 7 value(s)",
            "attribute",
        ),
    ],
)
async def test_error_names_its_line_and_column(
    import_client: ImportClient, cells: Cells, field: str, code: str
) -> None:
    rows = [simple("OK-1", ID="2"), simple() | cells, simple("OK-2", ID="3")]

    done = await import_client.import_to_end(woo_csv(*rows))

    assert counts(done) == (3, 2, 0, 0, 1)
    assert await error_codes(import_client, done) == [(3, field, code)]


async def test_malformed_rows_are_errors(import_client: ImportClient) -> None:
    lines = woo_csv(simple("OK-1", ID="2")).encode().splitlines()
    bad = [b"1,simple", b'1,simple,"X" y,Cap,1', b"1,simple,LATIN-\xe9,Cap,1", b",,,,"]

    done = await import_client.import_to_end(b"\n".join([*lines, *bad]))

    assert counts(done) == (4, 1, 0, 0, 3)
    assert await error_codes(import_client, done) == [
        (3, "", "ragged"),
        (4, "", "quotes"),
        (5, "SKU", "encoding"),
    ]


async def test_error_in_a_variable_product_is_reported_once(import_client: ImportClient) -> None:
    rows = [
        variable(10, "A", **{"Weight (kg)": "heavy"}),
        variation(11, "A", "S"),
        variation(12, "id:10", "M"),
        variable(20, "B"),
        variation(21, "B", "S"),
    ]

    done = await import_client.import_to_end(woo_csv(*rows))

    assert counts(done) == (5, 1, 0, 0, 3)
    assert await error_codes(import_client, done) == [
        (2, "Weight (kg)", "invalid"),
        (3, "Parent", "parent_invalid"),
        (4, "Parent", "parent_invalid"),
    ]


async def test_second_row_of_a_variable_product_is_an_error(import_client: ImportClient) -> None:
    rows = [variable(10, "A"), variable(10, "A", Name="Other"), variation(11, "A", "S", "A-S")]

    done = await import_client.import_to_end(woo_csv(*rows))

    assert await error_codes(import_client, done) == [(3, "ID", "duplicate_product")]
    assert (await by_sku(import_client, "A-S")).name == "Shirt 10"


async def test_warnings_name_what_is_lost(import_client: ImportClient) -> None:
    images = "https://i.example/a.jpg, upload.jpg, javascript:alert(1)"
    rows = [
        simple(
            Name="N" * 300,
            Categories="Home > Kitchen, Gifts, Home",
            Tags=f"ok, {'t' * 300}",
            Images=images,
            **{"Sale price": "10", "Sold individually?": "1", "Visibility in catalog": "hidden"},
            Published="1",
            **{"Attribute 1 name": "Care", "Attribute 1 value(s)": "c" * 1200},
        ),
        variable(10, "A"),
        variation(11, "A", "", "A-S", Stock="parent"),
        variable(12, "B"),
    ]

    done = await import_client.import_to_end(woo_csv(*rows))

    assert counts(done) == (4, 2, 0, 0, 0)
    assert set(await warning_codes(import_client, done)) == {
        (2, "Name", "cut"),
        (2, "Categories", "dropped"),
        (2, "Tags", "cut"),
        (2, "Images", "dropped"),
        (2, "Sale price", "dropped"),
        (2, "Sold individually?", "dropped"),
        (2, "Visibility in catalog", "hidden"),
        (2, "Attribute 1 value(s)", "cut"),
        (4, "Attribute 1 value(s)", "any_value"),
        (4, "Stock", "shared_stock"),
        (5, "Type", "no_variations"),
    }
    cap = await by_sku(import_client, "CAP")
    assert (cap.category, cap.images) == ("Home > Kitchen", ("https://i.example/a.jpg",))
    assert (cap.price.amount, cap.compare_at) == (950, None)


async def test_sku_added_later_updates_the_product(import_client: ImportClient) -> None:
    rows = [variable(10), variation(11, "id:10", "S"), variation(12, "id:10", "M")]
    await import_client.import_to_end(woo_csv(*rows))
    renamed = [variable(10, "SHIRT", Name="Renamed"), variation(11, "SHIRT", "S", "SHIRT-S")]

    done = await import_client.import_to_end(woo_csv(*renamed))

    assert counts(done) == (2, 0, 1, 0, 0)
    assert dict(done.changed_fields) == {"sku": 1, "name": 1, "family.name": 1}
    assert (await by_sku(import_client, "SHIRT-S")).family == "shirt-10-10"


async def test_new_variation_joins_the_family_of_its_siblings(import_client: ImportClient) -> None:
    rows = [variable(10, "A"), variation(11, "A", "S", "A-S"), variation(12, "A", "M", "A-M")]
    await import_client.import_to_end(woo_csv(*rows))
    rows[0]["Name"] = "Another name"
    filler = [simple(f"F-{n}", ID=str(1000 + n)) for n in range(1100)]
    late = variation(13, "A", "L", "A-L")

    done = await import_client.import_to_end(woo_csv(*rows, *filler, late))

    assert counts(done) == (1104, 1101, 2, 0, 0)
    late_product = await by_sku(import_client, "A-L")
    assert (late_product.family, late_product.name) == ("shirt-10-10", "Another name")


async def test_price_list_changes_only_prices(import_client: ImportClient) -> None:
    rows = [variable(10, "A"), variation(11, "A", "S", "A-S", Stock="5"), simple("C", ID="12")]
    await import_client.import_to_end(woo_csv(*rows))
    before = await by_sku(import_client, "A-S")
    prices = [
        {"ID": "11", "Type": "variation", "SKU": "A-S", "Parent": "A", "Regular price": "25,00"},
        {"ID": "12", "Type": "simple", "SKU": "C", "Parent": "", "Regular price": "12,00"},
    ]

    done = await import_client.import_to_end(woo_csv(*prices))

    assert counts(done) == (2, 0, 2, 0, 0)
    assert dict(done.changed_fields) == {"price": 2}
    after = await by_sku(import_client, "A-S")
    unchanged: dict[str, Any] = {"price": None, "version": 0, "updated_at": None}
    assert after.model_copy(update=unchanged) == before.model_copy(update=unchanged)


async def test_prices_and_attributes_of_other_sources_stay(import_client: ImportClient) -> None:
    command = NewProduct.model_validate(
        {
            "sku": "CAP",
            "name": "Cap",
            "price": {"amount": 950, "currency": "EUR"},
            "prices": [
                {"amount": 1100, "currency": "USD"},
                {"amount": 900, "currency": "EUR", "valid_until": "2030-01-01T00:00:00Z"},
            ],
            "attributes": {"origin": "Kiel", "Care": "wash"},
        }
    )
    await import_client.inventory_app.catalogue.create(STAFF, command, no_key())
    care = {"Attribute 1 name": "care", "Attribute 1 value(s)": "iron"}
    file = woo_csv(simple(**{"Sale price": ""}, **care))

    await import_client.import_to_end(file)
    again = await import_client.import_to_end(file)

    product = await by_sku(import_client, "CAP")
    assert [(price.currency, price.amount) for price in product.prices] == [("USD", 1100)]
    assert dict(product.attributes) == {"Care": "iron", "origin": "Kiel"}
    assert counts(again) == (1, 0, 0, 1, 0)


async def test_missing_variations_are_archived(import_client: ImportClient) -> None:
    rows = [variable(10, "A"), variation(11, "A", "S", "A-S"), variation(12, "A", "M", "A-M")]
    await import_client.import_to_end(woo_csv(*rows))

    done = await import_client.import_to_end(woo_csv(*rows[:2]), missing="archive")

    assert done.rows.archived == 1
    assert (await by_sku(import_client, "A-M")).status == ProductStatus.ARCHIVED


async def test_same_column_in_two_languages_is_refused(import_client: ImportClient) -> None:
    done = await import_client.import_to_end("ID,SKU,Artikelnummer,Regular price\n1,A,B,1\n")

    assert done.failure is not None
    assert done.failure.message == "The columns SKU and Artikelnummer are the same."


async def test_variable_products_of_a_file_are_limited() -> None:
    import_client = ImportClient(build_inventory_app("memory"))
    rows = (f"{n},variation,id:{n},1\n" for n in range(100_001))

    done = await import_client.import_to_end("ID,Type,Parent,Regular price\n" + "".join(rows))

    assert done.failure is not None
    assert done.failure.code == "too_many_products"
    assert done.rows.read == 0
