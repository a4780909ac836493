"""Test that an import of an export restores the products, and that no cell is a formula."""

import csv
import io
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from markethall.inventory.catalogue.contract.products import NewProduct, ProductView
from markethall.shared.kernel.model import has_visible_character
from markethall.shared.kernel.money import (
    EXPONENT_BY_CURRENCY,
    format_major_units,
    parse_major_units,
)
from tests.inventory.conftest import STAFF, InventoryApp, build_inventory_app, no_key
from tests.inventory.import_client import ImportClient, counts

# texts that a CSV reader or a spreadsheet may interpret
_SPECIAL_TEXTS = st.sampled_from(
    ["'", '"', ",", ";", "\r", "\n", "\r\n", "\t", "=", "+", "-", "@", "=1+1", "[", "{", "\ufeff",
     "\u2028", "\x85", "\x0b", "\x1f", "null", " ", "0", "é", "😀"]
)  # fmt: skip
_LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")


def _texts(min_length: int, max_length: int) -> st.SearchStrategy[str]:
    text = st.lists(_SPECIAL_TEXTS | st.text(_LETTERS, max_size=5), max_size=6).map("".join)
    return text.filter(
        lambda text: (
            min_length <= len(text) <= max_length and (not text or has_visible_character(text))
        )
    )


_PRICES = st.fixed_dictionaries(
    {"amount": st.integers(0, 10**15), "currency": st.sampled_from(["EUR", "JPY", "KWD"])},
    optional={
        "compare_at": st.none() | st.integers(0, 10**15),
        "valid_from": st.sampled_from(["2000-01-01T00:00:00Z", "2020-02-29T12:34:56.789012+02:00"]),
        "valid_until": st.sampled_from(["2021-01-01T00:00:00Z", "2100-12-31T23:59:59-11:00"]),
    },
)
_PRODUCTS = st.fixed_dictionaries(
    {
        "name": _texts(1, 200),
        "description": _texts(0, 500),
        "price": st.fixed_dictionaries(
            {
                "amount": st.integers(0, 10**15),
                "currency": st.sampled_from(sorted(EXPONENT_BY_CURRENCY)),
            }
        ),
        "category": st.none() | _texts(1, 100),
        "family": st.none() | _texts(1, 100),
        "options": st.dictionaries(_texts(1, 50), _texts(1, 100), max_size=3),
        "tags": st.lists(_texts(1, 50), max_size=3),
        "attributes": st.dictionaries(
            _texts(1, 50),
            _texts(0, 50) | st.booleans() | st.integers(-(10**15), 10**15),
            max_size=3,
        ),
        "barcode": st.none() | _texts(1, 64),
        "weight_grams": st.none() | st.integers(0, 10**9),
        "tax_class": _texts(1, 50),
        "compare_at": st.none() | st.integers(0, 10**15),
        "prices": st.lists(_PRICES, max_size=3),
        "translations": st.dictionaries(
            st.sampled_from(["de", "pt-BR", "zh-Hant"]),
            st.fixed_dictionaries(
                {}, optional={"name": _texts(1, 50), "description": _texts(0, 9)}
            ),
        ),
        "backorder_limit": st.integers(0, 1_000_000),
        "inventory_policy": st.sampled_from(["deny", "continue"]),
        "track_inventory": st.booleans(),
        "low_stock_threshold": st.none() | st.integers(0, 1_000_000),
        "status": st.sampled_from(["draft", "active", "archived"]),
    }
)


@given(st.lists(st.tuples(_PRODUCTS, st.integers(0, 1_000_000)), max_size=4))
async def test_export_reimports_as_same_catalogue(
    products: list[tuple[dict[str, Any], int]],
) -> None:
    source, target = (
        ImportClient(build_inventory_app("memory")),
        ImportClient(build_inventory_app("memory")),
    )
    for number, (fields, on_hand) in enumerate(products):
        command = NewProduct.model_validate({"sku": f"P-{number}", **fields})
        product = await source.inventory_app.catalogue.create(STAFF, command, no_key())
        if on_hand:
            await source.inventory_app.adjust(product.product_id, delta=on_hand)

    file = await source.export()
    imported = await target.import_to_end(file)
    again = await source.import_to_end(file)

    assert await target.errors(imported) == []
    assert counts(imported) == (len(products), len(products), 0, 0, 0)
    assert counts(again) == (len(products), 0, 0, len(products), 0)
    assert await _comparable_products(source, len(products)) == await _comparable_products(
        target, len(products)
    )
    assert sorted(file.splitlines()) == sorted((await target.export()).splitlines())


@given(_PRODUCTS)
async def test_export_escapes_formulas(fields: dict[str, Any]) -> None:
    import_client = ImportClient(build_inventory_app("memory"))
    command = NewProduct.model_validate({"sku": "P-1", **fields})
    await import_client.inventory_app.catalogue.create(STAFF, command, no_key())

    file = (await import_client.export()).decode()

    for row in csv.reader(io.StringIO(file, newline="")):
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row)


async def _comparable_products(import_client: ImportClient, count: int) -> list[ProductView]:
    """Return the products with equal ids, versions and times, which differ between databases."""
    same = {"product_id": None, "version": 1, "created_at": None, "updated_at": None}
    found = [
        await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, f"P-{number}")
        for number in range(count)
    ]
    return [product.model_copy(update=same) for product in found]


@given(st.integers(0, 10**15), st.sampled_from(sorted(EXPONENT_BY_CURRENCY)))
def test_amounts_round_trip_exactly(amount: int, currency: str) -> None:
    assert parse_major_units(format_major_units(amount, currency), currency) == amount


async def test_export_spans_multiple_pages(sql_inventory_app: InventoryApp) -> None:
    import_client = ImportClient(sql_inventory_app)
    rows = "".join(f"P-{n},Name {n},{n},{n % 3}\n" for n in range(1100))
    await import_client.import_to_end(f"sku,name,price,on_hand\n{rows}")

    file = await import_client.export()

    found = list(csv.DictReader(io.StringIO(file.decode(), newline="")))
    assert {(row["sku"], row["price"], row["on_hand"]) for row in found} == {
        (f"P-{n}", f"{n}.00", str(n % 3)) for n in range(1100)
    }
    assert len(found) == 1100
    assert counts(await import_client.import_to_end(file)) == (1100, 0, 0, 1100, 0)


async def test_largest_product_round_trips() -> None:
    """The longest cell holds the translations, and each quote in it takes three bytes.

    JSON adds a backslash before the quote, and CSV doubles the quote.
    """
    text = '"\N{GRINNING FACE}' * 5000
    languages = [f"{a}{b}" for a in "abcde" for b in "klmnopqrst"]
    fields = {
        "description": text,
        "images": [f"https://img.example/{n:02d}/{'x' * 1900}" for n in range(20)],
        "attributes": {f"a{n}": text[:1000] for n in range(20)},
        "translations": {
            language: {"name": language, "description": text} for language in languages
        },
    }
    source, target = (
        ImportClient(build_inventory_app("memory")),
        ImportClient(build_inventory_app("memory")),
    )
    command = NewProduct.model_validate(
        {"sku": "P-0", "name": "Large", "price": {"amount": 1, "currency": "EUR"}, **fields}
    )
    await source.inventory_app.catalogue.create(STAFF, command, no_key())

    imported = await target.import_to_end(await source.export())

    assert await target.errors(imported) == []
    assert counts(imported) == (1, 1, 0, 0, 0)
    assert await _comparable_products(source, 1) == await _comparable_products(target, 1)
