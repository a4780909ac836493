"""The import of files, on each storage."""

import json
from typing import Any

import pytest
import sqlalchemy as sa

from markethall.inventory.catalogue.contract.fields import ProductStatus
from markethall.inventory.imports.contract import (
    ImportFileExpired,
    ImportFormat,
    ImportNotFailed,
    ImportNotFound,
    ImportStatus,
    NewImport,
    NoteKind,
)
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import PageQuery
from markethall.shared.persistence.postgres import PoolSize, Postgres, Statement
from tests.inventory.conftest import STAFF, InventoryApp, build_inventory_app, no_key
from tests.inventory.import_client import ImportClient, counts
from tests.inventory.race_setup import slow_connection_to
from tests.proxy import Mode

NATIVE_CSV = """\
sku,name,price,currency,category,tags,options,on_hand
TEA-1,Sencha,12.50,EUR,tea,"green,loose","{""weight"":""100 g""}",7
TEA-2,Gyokuro,1250,JPY,tea,,,
"""


@pytest.fixture(params=["memory", "sql"])
def inventory_app(request: pytest.FixtureRequest) -> InventoryApp:
    if request.param == "memory":
        return build_inventory_app("memory")
    return build_inventory_app("sql", request.getfixturevalue("postgres"))


@pytest.fixture
def import_client(inventory_app: InventoryApp) -> ImportClient:
    return ImportClient(inventory_app)


async def test_import_creates_products_with_stock(import_client: ImportClient) -> None:
    done = await import_client.import_to_end(NATIVE_CSV)

    assert done.status == ImportStatus.DONE
    assert counts(done) == (2, 2, 0, 0, 0)
    assert (done.percent, done.rows_left) == (100, 0)
    sencha = await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, "tea-1")
    gyokuro = await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, "tea-2")
    assert (sencha.price.amount, sencha.available) == (1250, 7)
    assert sencha.tags == ("green", "loose")
    assert dict(sencha.options) == {"weight": "100 g"}
    assert (gyokuro.price.amount, gyokuro.price.currency, gyokuro.available) == (1250, "JPY", 0)


async def test_reimport_changes_nothing(import_client: ImportClient) -> None:
    await import_client.import_to_end(NATIVE_CSV)
    before = await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, "TEA-1")

    done = await import_client.import_to_end(NATIVE_CSV)

    assert counts(done) == (2, 0, 0, 2, 0)
    assert await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, "TEA-1") == before


async def test_missing_columns_keep_values(import_client: ImportClient) -> None:
    await import_client.import_to_end(NATIVE_CSV)

    done = await import_client.import_to_end("SKU;price;currency\ntea-1;9.99;EUR\n")

    assert counts(done) == (1, 0, 1, 0, 0)
    product = await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, "TEA-1")
    assert (product.sku, product.name, product.price.amount) == ("TEA-1", "Sencha", 999)
    assert (product.version, product.available) == (2, 7)


async def test_on_hand_column_creates_movement(import_client: ImportClient) -> None:
    inventory_app = import_client.inventory_app
    product = await inventory_app.product("TEA-1", stock=10)

    done = await import_client.import_to_end("sku,on_hand\nTEA-1,4\n", with_stock=True)

    assert counts(done) == (1, 0, 1, 0, 0)
    assert await inventory_app.main_stock(product.product_id) == (4, 0)
    page = await inventory_app.stockroom.list_movements(STAFF, product.product_id, PageQuery())
    assert (page.items[0].delta, page.items[0].reason) == (-6, "counted")
    assert page.items[0].note == f"import {done.import_id}"


async def test_count_below_reserved_is_row_error(import_client: ImportClient) -> None:
    product = await import_client.inventory_app.product("TEA-1", stock=10)
    await import_client.inventory_app.reserve({product.product_id: 5})

    done = await import_client.import_to_end(
        "sku,name,price,on_hand\nTEA-1,New name,1,4\n", with_stock=True
    )

    assert counts(done) == (1, 0, 0, 0, 1)
    assert [error.code for error in await import_client.errors(done)] == [
        "inventory.would_go_negative"
    ]
    unchanged = await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, "TEA-1")
    assert unchanged.name == product.name


async def test_count_below_expired_reservations_is_applied(import_client: ImportClient) -> None:
    product = await import_client.inventory_app.product("TEA-1", stock=10)
    await import_client.inventory_app.reserve({product.product_id: 5})
    import_client.inventory_app.clock.advance(hours=1)

    done = await import_client.import_to_end("sku,on_hand\nTEA-1,4\n", with_stock=True)

    assert counts(done) == (1, 0, 1, 0, 0)
    assert await import_client.inventory_app.main_stock(product.product_id) == (4, 0)


async def test_lower_backorder_limit_and_count_apply_together(import_client: ImportClient) -> None:
    product = await import_client.inventory_app.product("TEA-1", stock=10, backorder_limit=5)
    await import_client.inventory_app.reserve({product.product_id: 8})

    done = await import_client.import_to_end(
        "sku,backorder_limit,on_hand\nTEA-1,0,6\n", with_stock=True
    )

    assert counts(done) == (1, 0, 1, 0, 0)
    assert await import_client.inventory_app.main_stock(product.product_id) == (6, 8)
    assert (
        await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, "TEA-1")
    ).backorder_limit == 0


async def test_invalid_row_is_reported_and_skipped(import_client: ImportClient) -> None:
    rows = [
        b"sku,name,price,status",
        b"A-1,Good,1.00,active",
        b"A\t2,Bad sku,1.00,active",
        b"A-3,Too exact,1.001,active",
        b"A-4,Ragged",
        b"A-5,No such status,1.00,sold",
        b"A-6,Latin-1 \xe9,1.00,active",
        b"A-7,N\x00L,1.00,active",
        b'A-8,"Quoted" wrongly,1.00,active',
        b"A-9,,1.00,active",
        b"A-10,Good too,2.00,draft",
    ]

    done = await import_client.import_to_end(b"\r\n".join(rows))

    assert counts(done) == (10, 2, 0, 0, 8)
    found = [(error.line, error.field, error.code) for error in await import_client.errors(done)]
    assert found == [
        (3, "sku", "not_printable"),
        (4, "price", "invalid"),
        (5, "", "ragged"),
        (6, "status", "enum"),
        (7, "name", "encoding"),
        (8, "name", "value_error"),
        (9, "", "quotes"),
        (10, "name", "too_short"),
    ]
    last = await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, "A-10")
    assert last.status == ProductStatus.DRAFT


async def test_unclosed_quote_loses_one_row(import_client: ImportClient) -> None:
    rows = ["sku,name,price", 'B-1,"never closed,1', "B-2,Two,2", "B-3,Three,3", ""]

    done = await import_client.import_to_end("\n".join(rows))

    assert counts(done) == (3, 2, 0, 0, 1)
    assert [error.line for error in await import_client.errors(done)] == [2]


async def test_oversized_row_is_skipped(import_client: ImportClient) -> None:
    long = b"x" * 12_000_000

    done = await import_client.import_to_end(b"sku,name,price\nC-1," + long + b",1\nC-2,Two,2\n")

    assert counts(done) == (2, 1, 0, 0, 1)
    assert [(e.line, e.code) for e in await import_client.errors(done)] == [(2, "row_too_long")]


async def test_last_row_of_a_sku_wins(import_client: ImportClient) -> None:
    done = await import_client.import_to_end("sku,name,price,on_hand\nD-1,Old,1,5\nd-1,New,2,3\n")

    assert counts(done) == (2, 1, 1, 0, 0)
    product = await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, "D-1")
    assert (product.name, product.price.amount, product.available) == ("New", 200, 3)


async def test_new_product_requires_name_and_price(import_client: ImportClient) -> None:
    done = await import_client.import_to_end("sku,category\nE-1,tea\n")

    errors = await import_client.errors(done)
    assert [(error.field, error.code) for error in errors] == [
        ("name", "missing"),
        ("price", "missing"),
    ]


async def test_dry_run_reports_and_changes_nothing(import_client: ImportClient) -> None:
    await import_client.import_to_end("sku,name,price\nF-1,One,1\n")

    done = await import_client.import_to_end(
        "sku,name,price\nF-1,Uno,1\nF-2,Two,2\nF-3,,3\n", dry_run=True
    )

    assert (done.status, done.dry_run) == (ImportStatus.DONE, True)
    assert counts(done) == (3, 1, 1, 0, 1)
    assert (
        await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, "F-1")
    ).name == "One"
    assert await import_client.inventory_app.catalogue.count() == 1


async def test_json_lines_import_with_and_without_bom(
    import_client: ImportClient,
) -> None:
    lines = [
        {"sku": "G-1", "name": "One", "price": {"amount": 100, "currency": "EUR"}, "on_hand": 2},
        {"sku": "G-2", "name": "Two", "price": {"amount": "1", "currency": "EUR"}},
        {"sku": "G-1", "tags": ["a", "b"]},
    ]
    data = "\n\n".join(json.dumps(line) for line in lines) + '\nnonsense\n{"a":1,"a":2}'

    for bom in ("", "\ufeff"):
        done = await import_client.import_to_end(bom + data, format="ndjson")

        assert done.rows.read == 5
        assert done.rows.failed == 3
        found = [
            (error.line, error.field, error.code) for error in await import_client.errors(done)
        ]
        assert found == [(3, "/price/amount", "int_type"), (6, "", "json"), (7, "", "json")]
    product = await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, "G-1")
    assert (product.tags, product.available) == (("a", "b"), 2)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"name,price\nOne,1\n", "header"),
        (b"sku,name,colour\n", "header"),
        (b"sku,sku\n", "header"),
        (b"sku,\xe9t\xe9\n", "encoding"),
        ("sku,name\nA,B\n".encode("utf-16"), "encoding"),
        (b"\x1f\x8b\x08\x00\x00\x00", "encoding"),
    ],
)
async def test_unreadable_file_fails_the_import(
    import_client: ImportClient, data: bytes, code: str
) -> None:
    done = await import_client.import_to_end(data)

    assert done.status == ImportStatus.FAILED
    assert done.failure is not None
    assert done.failure.code == code


async def test_only_failed_import_can_be_retried(import_client: ImportClient) -> None:
    failed = await import_client.import_to_end("nonsense")
    done = await import_client.import_to_end(NATIVE_CSV)

    again = await import_client.imports.retry_import(STAFF, failed.import_id, no_key())

    assert (again.status, again.failure) == (ImportStatus.WAITING, None)
    with pytest.raises(ImportNotFailed):
        await import_client.imports.retry_import(STAFF, done.import_id, no_key())
    with pytest.raises(ImportNotFound):
        await import_client.imports.retry_import(STAFF, new_id(), no_key())


async def test_file_of_a_failed_import_is_kept_for_a_week(import_client: ImportClient) -> None:
    failed = await import_client.import_to_end("nonsense")
    later = await import_client.import_to_end("nonsense too")

    import_client.inventory_app.clock.advance(days=6)
    await import_client.inventory_app.run_periodic_jobs()
    await import_client.imports.retry_import(STAFF, later.import_id, no_key())
    import_client.inventory_app.clock.advance(days=2)
    await import_client.inventory_app.run_periodic_jobs()

    with pytest.raises(ImportFileExpired):
        await import_client.imports.retry_import(STAFF, failed.import_id, no_key())
    assert (
        await import_client.imports.get_import(STAFF, failed.import_id)
    ).status == ImportStatus.FAILED
    await import_client.inventory_app.container.import_worker().process_next(later.import_id)
    retried = await import_client.imports.get_import(STAFF, later.import_id)
    assert retried.failure is not None
    assert retried.failure.code == "header"


async def test_upload_not_deleted_now_is_deleted_by_cleanup_job(
    database_url: str, postgres: Postgres
) -> None:
    count_uploads = Statement(sa.text("SELECT count(*) FROM inventory.import_upload"))
    async with slow_connection_to(database_url, latency=0) as (url, proxy):
        proxied = Postgres(url, PoolSize(1, 2, 5))
        import_client = ImportClient(build_inventory_app("sql", proxied))
        upload = await import_client.upload(NATIVE_CSV.encode())
        await proxy.switch(Mode.CUT)

        await import_client.imports.discard_upload(STAFF, upload)

        await proxy.switch(Mode.PASS)
        async with postgres.read_session() as connection:
            assert await connection.fetch_value(count_uploads) == 1
        import_client.inventory_app.clock.advance(hours=2)
        await import_client.inventory_app.run_periodic_jobs()
        async with postgres.read_session() as connection:
            assert await connection.fetch_value(count_uploads) == 0
        await proxied.close()


async def test_old_imports_and_errors_are_purged(import_client: ImportClient) -> None:
    old = await import_client.import_to_end("sku,name,price\nH-1,x,bad\n")
    import_client.inventory_app.clock.advance(days=89)
    await import_client.inventory_app.run_periodic_jobs()
    assert len(await import_client.errors(old)) == 1
    recent = await import_client.import_to_end(NATIVE_CSV)

    import_client.inventory_app.clock.advance(days=2)
    await import_client.inventory_app.run_periodic_jobs()

    with pytest.raises(ImportNotFound):
        await import_client.errors(old)
    assert (
        await import_client.imports.get_import(STAFF, recent.import_id)
    ).status == ImportStatus.DONE


async def test_start_is_idempotent_by_id(import_client: ImportClient) -> None:
    attempt = no_key()
    done = await import_client.import_to_end(NATIVE_CSV)
    upload = await import_client.upload(NATIVE_CSV.encode())
    command = NewImport(sha256=upload.sha256, format=ImportFormat.CSV)

    first = await import_client.imports.start_import(STAFF, upload, command, attempt)
    second = await import_client.imports.start_import(STAFF, upload, command, attempt)

    assert first == second
    assert first.import_id != done.import_id


async def test_errors_are_paginated_in_file_order(import_client: ImportClient) -> None:
    done = await import_client.import_to_end("sku,name,price\n" + "H-1,x,bad\n" * 5)

    first = await import_client.imports.list_row_notes(
        STAFF, done.import_id, NoteKind.ERROR, PageQuery(limit=3)
    )
    cursor = first.next_cursor
    second = await import_client.imports.list_row_notes(
        STAFF, done.import_id, NoteKind.ERROR, PageQuery(limit=3, cursor=cursor)
    )

    assert [error.line for error in (*first.items, *second.items)] == [2, 3, 4, 5, 6]
    assert second.next_cursor is None
    with pytest.raises(ImportNotFound):
        await import_client.imports.list_row_notes(STAFF, new_id(), NoteKind.ERROR, PageQuery())


async def test_large_file_is_imported_in_batches_without_loss(
    import_client: ImportClient,
) -> None:
    rows = [f'I-{n},"Number {n},\nin two lines",{n}.50,{n % 7}' for n in range(3500)]
    data = "\ufeffsku,name,price,on_hand\n" + "\n".join(rows)

    done = await import_client.import_to_end(data, chunk_bytes=777)

    assert counts(done) == (3500, 3500, 0, 0, 0)
    assert await import_client.inventory_app.catalogue.count() == 3500
    last = await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, "I-3499")
    assert (last.name, last.available) == ("Number 3499,\nin two lines", 6)


async def test_unstorable_name_is_row_error(import_client: ImportClient) -> None:
    line: dict[str, Any] = {
        "sku": "J-1",
        "name": "One",
        "price": {"amount": 100, "currency": "EUR"},
    }
    invalid: list[dict[str, Any]] = [
        {"\x00": 1},
        {"options": {"a\x00": "b"}},
        {"attributes": {"a\x00": "b"}},
        {"translations": {"\x00": {}}},
        {"attributes": {"\ud800": "b"}},
    ]

    lines = (json.dumps(line | part) for part in invalid)

    done = await import_client.import_to_end("\n".join(lines), format="ndjson")

    assert (done.status, done.rows.failed) == (ImportStatus.DONE, 5)
    fields = {error.field for error in await import_client.errors(done)}
    assert "/\ufffd" in fields
    assert not any("\x00" in field for field in fields)


async def test_compare_at_requires_price(import_client: ImportClient) -> None:
    """A row with `compare_at` but without a price is an error.

    Otherwise the amount would be read in the currency of the row, but stored in the currency of
    the product.
    """
    await import_client.import_to_end("sku,name,price,currency\nK-1,One,10,EUR\n")

    done = await import_client.import_to_end(
        "sku,price,currency,compare_at\nK-1,,JPY,100\nK-1,5,EUR,6\n"
    )

    assert counts(done) == (2, 0, 1, 0, 1)
    found = [(error.line, error.field, error.code) for error in await import_client.errors(done)]
    assert found == [(2, "compare_at", "price_missing")]
