"""Test that the number of SQL statements for a batch does not grow with its rows."""

from collections.abc import Callable, Iterator

import pytest

from markethall.shared.observability.metrics import STATEMENTS
from tests.inventory.conftest import InventoryApp
from tests.inventory.import_client import ImportClient

# the worker adds one statement that leases the import, and some that read its file
MAX_STATEMENTS = 40

WriteRows = Callable[[int, str], Iterator[str]]


def _native_rows(count: int, version: str) -> Iterator[str]:
    yield "sku,name,price,category,family,on_hand"
    for n in range(count):
        yield f"S-{count}-{n},Name {version},1,Home > Room {n % 9},family {count} {n},3"


def _family_rows(count: int, version: str) -> Iterator[str]:
    yield "label,slug,name,category"
    for n in range(count):
        yield f"L {count} {n},slug-{version}-{count}-{n},Name {version},Home > Room {n % 9}"


def _shopify_rows(count: int, version: str) -> Iterator[str]:
    yield "Handle,Title,Type,Option1 Name,Option1 Value,Variant Price,Variant Inventory Qty"
    for n in range(count // 2):
        yield f"h-{count}-{n},Name {version},Home,Size,S,1,2"
        yield f"h-{count}-{n},,,,M,1,2"


def _woocommerce_rows(count: int, version: str) -> Iterator[str]:
    yield "ID,Type,SKU,Name,Regular price,Stock,Parent,Attribute 1 name,Attribute 1 value(s)"
    for n in range(count // 2):
        yield f"{count}{n:03d},variable,P-{count}-{n},Name {version},,,,Size,S"
        yield f"{count}{n:04d},variation,V-{count}-{n},,1,2,P-{count}-{n},Size,S"


async def _count_statements(import_client: ImportClient, file: str) -> int:
    started = await import_client.start(file.encode())
    worker = import_client.inventory_app.container.import_worker()
    before = int(STATEMENTS._value.get())
    done = await worker.process_next(started.import_id)
    assert done is not None
    assert (done.rows.failed, done.failure) == (0, None)
    return int(STATEMENTS._value.get()) - before


@pytest.mark.parametrize(
    "write_rows", [_native_rows, _family_rows, _shopify_rows, _woocommerce_rows]
)
async def test_statements_of_a_batch_do_not_grow_with_its_rows(
    sql_inventory_app: InventoryApp, write_rows: WriteRows
) -> None:
    import_client = ImportClient(sql_inventory_app)
    # so that no counted import creates the categories
    await import_client.import_to_end("\n".join(write_rows(18, "first")))

    found = [
        [
            await _count_statements(import_client, "\n".join(write_rows(rows, version)))
            for version in ("first", "first", "second")
        ]
        for rows in (20, 240)
    ]

    few, many = found
    assert few == many
    assert max(many) <= MAX_STATEMENTS
