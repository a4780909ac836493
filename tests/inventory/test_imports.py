"""Files become products: the same in memory and in Postgres."""

import json
from typing import Any

import pytest
import sqlalchemy as sa

from markethall.inventory.contract import (
    ImportForgotten,
    ImportFormat,
    ImportNotFailed,
    ImportNotFound,
    ImportStatus,
    NewImport,
    ProductStatus,
)
from markethall.shared.db import PoolSize, Postgres, Statement
from markethall.shared.ids import new_id
from markethall.shared.pages import PageQuery
from tests.inventory.arena import line_to
from tests.inventory.carrier import Carrier, counts
from tests.inventory.conftest import STAFF, House, build, no_key
from tests.proxy import Mode

OURS = """\
sku,name,price,currency,category,tags,options,on_hand
TEA-1,Sencha,12.50,EUR,tea,"green,loose","{""weight"":""100 g""}",7
TEA-2,Gyokuro,1250,JPY,tea,,,
"""


@pytest.fixture(params=["memory", "sql"])
def house(request: pytest.FixtureRequest) -> House:
    if request.param == "memory":
        return build("memory")
    return build("sql", request.getfixturevalue("postgres"))


@pytest.fixture
def carrier(house: House) -> Carrier:
    return Carrier(house)


async def test_a_file_becomes_products_with_stock(carrier: Carrier) -> None:
    done = await carrier.bring(OURS)

    assert done.status == ImportStatus.DONE
    assert counts(done) == (2, 2, 0, 0, 0)
    assert (done.percent, done.rows_left) == (100, 0)
    sencha = await carrier.house.catalogue.product_by_sku(STAFF, "tea-1")
    gyokuro = await carrier.house.catalogue.product_by_sku(STAFF, "tea-2")
    assert (sencha.price.amount, sencha.available) == (1250, 7)
    assert sencha.tags == ("green", "loose")
    assert dict(sencha.options) == {"weight": "100 g"}
    assert (gyokuro.price.amount, gyokuro.price.currency, gyokuro.available) == (1250, "JPY", 0)


async def test_the_same_file_again_changes_nothing(carrier: Carrier) -> None:
    await carrier.bring(OURS)
    before = await carrier.house.catalogue.product_by_sku(STAFF, "TEA-1")

    done = await carrier.bring(OURS)

    assert counts(done) == (2, 0, 0, 2, 0)
    assert await carrier.house.catalogue.product_by_sku(STAFF, "TEA-1") == before


async def test_columns_that_a_file_does_not_have_stay_as_they_are(carrier: Carrier) -> None:
    await carrier.bring(OURS)

    done = await carrier.bring("SKU;price;currency\ntea-1;9.99;EUR\n")

    assert counts(done) == (1, 0, 1, 0, 0)
    product = await carrier.house.catalogue.product_by_sku(STAFF, "TEA-1")
    assert (product.sku, product.name, product.price.amount) == ("TEA-1", "Sencha", 999)
    assert (product.version, product.available) == (2, 7)


async def test_what_is_counted_becomes_a_movement(carrier: Carrier) -> None:
    house = carrier.house
    product = await house.product("TEA-1", stock=10)

    done = await carrier.bring("sku,on_hand\nTEA-1,4\n")

    assert counts(done) == (1, 0, 1, 0, 0)
    assert await house.shelf(product.product_id) == (4, 0)
    page = await house.stockroom.movements(STAFF, product.product_id, PageQuery())
    assert (page.items[0].delta, page.items[0].reason) == (-6, "counted")
    assert page.items[0].note == f"import {done.import_id}"


async def test_a_count_below_what_is_reserved_is_an_error_of_its_row(carrier: Carrier) -> None:
    product = await carrier.house.product("TEA-1", stock=10)
    await carrier.house.reserve({product.product_id: 5})

    done = await carrier.bring("sku,name,price,on_hand\nTEA-1,New name,1,4\n")

    assert counts(done) == (1, 0, 0, 0, 1)
    assert [error.code for error in await carrier.errors(done)] == ["inventory.would_go_negative"]
    kept = await carrier.house.catalogue.product_by_sku(STAFF, "TEA-1")
    assert kept.name == product.name


async def test_a_count_below_what_expired_holds_have_is_kept(carrier: Carrier) -> None:
    product = await carrier.house.product("TEA-1", stock=10)
    await carrier.house.reserve({product.product_id: 5})
    carrier.house.watch.forward(hours=1)

    done = await carrier.bring("sku,on_hand\nTEA-1,4\n")

    assert counts(done) == (1, 0, 1, 0, 0)
    assert await carrier.house.shelf(product.product_id) == (4, 0)


async def test_a_lower_backorder_limit_and_a_lower_count_come_together(carrier: Carrier) -> None:
    product = await carrier.house.product("TEA-1", stock=10, backorder_limit=5)
    await carrier.house.reserve({product.product_id: 8})

    done = await carrier.bring("sku,backorder_limit,on_hand\nTEA-1,0,6\n")

    assert counts(done) == (1, 0, 1, 0, 0)
    assert await carrier.house.shelf(product.product_id) == (6, 8)
    assert (await carrier.house.catalogue.product_by_sku(STAFF, "TEA-1")).backorder_limit == 0


async def test_a_bad_row_stops_nothing_and_is_named(carrier: Carrier) -> None:
    rows = [
        b"sku,name,price,status",
        b"A-1,Good,1.00,active",
        b"A 2,Bad sku,1.00,active",
        b"A-3,Too exact,1.001,active",
        b"A-4,Ragged",
        b"A-5,No such status,1.00,sold",
        b"A-6,Latin-1 \xe9,1.00,active",
        b"A-7,N\x00L,1.00,active",
        b'A-8,"Quoted" wrongly,1.00,active',
        b"A-9,,1.00,active",
        b"A-10,Good too,2.00,draft",
    ]

    done = await carrier.bring(b"\r\n".join(rows))

    assert counts(done) == (10, 2, 0, 0, 8)
    found = [(error.line, error.field, error.code) for error in await carrier.errors(done)]
    assert found == [
        (3, "sku", "string_pattern_mismatch"),
        (4, "price", "invalid"),
        (5, "", "ragged"),
        (6, "status", "enum"),
        (7, "name", "encoding"),
        (8, "name", "value_error"),
        (9, "", "quotes"),
        (10, "name", "too_short"),
    ]
    last = await carrier.house.catalogue.product_by_sku(STAFF, "A-10")
    assert last.status == ProductStatus.DRAFT


async def test_a_quote_that_never_closes_costs_one_row(carrier: Carrier) -> None:
    rows = ["sku,name,price", 'B-1,"never closed,1', "B-2,Two,2", "B-3,Three,3", ""]

    done = await carrier.bring("\n".join(rows))

    assert counts(done) == (3, 2, 0, 0, 1)
    assert [error.line for error in await carrier.errors(done)] == [2]


async def test_a_row_without_end_is_passed_over(carrier: Carrier) -> None:
    long = b"x" * 12_000_000

    done = await carrier.bring(b"sku,name,price\nC-1," + long + b",1\nC-2,Two,2\n")

    assert counts(done) == (2, 1, 0, 0, 1)
    assert [(e.line, e.code) for e in await carrier.errors(done)] == [(2, "row_too_long")]


async def test_the_later_row_of_a_sku_wins(carrier: Carrier) -> None:
    done = await carrier.bring("sku,name,price,on_hand\nD-1,Old,1,5\nd-1,New,2,3\n")

    assert counts(done) == (2, 1, 1, 0, 0)
    product = await carrier.house.catalogue.product_by_sku(STAFF, "D-1")
    assert (product.name, product.price.amount, product.available) == ("New", 200, 3)


async def test_a_new_product_needs_a_name_and_a_price(carrier: Carrier) -> None:
    done = await carrier.bring("sku,category\nE-1,tea\n")

    errors = await carrier.errors(done)
    assert [(error.field, error.code) for error in errors] == [
        ("name", "missing"),
        ("price", "missing"),
    ]


async def test_a_dry_run_tells_and_changes_nothing(carrier: Carrier) -> None:
    await carrier.bring("sku,name,price\nF-1,One,1\n")

    done = await carrier.bring("sku,name,price\nF-1,Uno,1\nF-2,Two,2\nF-3,,3\n", dry_run=True)

    assert (done.status, done.dry_run) == (ImportStatus.DONE, True)
    assert counts(done) == (3, 1, 1, 0, 1)
    assert (await carrier.house.catalogue.product_by_sku(STAFF, "F-1")).name == "One"
    assert await carrier.house.catalogue.count() == 1


async def test_lines_of_json_become_products_with_a_byte_order_mark_or_without(
    carrier: Carrier,
) -> None:
    lines = [
        {"sku": "G-1", "name": "One", "price": {"amount": 100, "currency": "EUR"}, "on_hand": 2},
        {"sku": "G-2", "name": "Two", "price": {"amount": "1", "currency": "EUR"}},
        {"sku": "G-1", "tags": ["a", "b"]},
    ]
    data = "\n\n".join(json.dumps(line) for line in lines) + '\nnonsense\n{"a":1,"a":2}'

    for mark in ("", "\ufeff"):
        done = await carrier.bring(mark + data, format="ndjson")

        assert done.rows.read == 5
        assert done.rows.failed == 3
        found = [(error.line, error.field, error.code) for error in await carrier.errors(done)]
        assert found == [(3, "/price/amount", "int_type"), (6, "", "json"), (7, "", "json")]
    product = await carrier.house.catalogue.product_by_sku(STAFF, "G-1")
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
async def test_a_file_that_is_none_fails_as_a_whole(
    carrier: Carrier, data: bytes, code: str
) -> None:
    done = await carrier.bring(data)

    assert done.status == ImportStatus.FAILED
    assert done.failure is not None
    assert done.failure.code == code


async def test_a_failed_import_may_be_tried_again_and_no_other(carrier: Carrier) -> None:
    failed = await carrier.bring("nonsense")
    done = await carrier.bring(OURS)

    again = await carrier.imports.retry(STAFF, failed.import_id, no_key())

    assert (again.status, again.failure) == (ImportStatus.WAITING, None)
    with pytest.raises(ImportNotFailed):
        await carrier.imports.retry(STAFF, done.import_id, no_key())
    with pytest.raises(ImportNotFound):
        await carrier.imports.retry(STAFF, new_id(), no_key())


async def test_the_file_of_a_failed_import_is_kept_for_a_week(carrier: Carrier) -> None:
    failed = await carrier.bring("nonsense")
    later = await carrier.bring("nonsense too")

    carrier.house.watch.forward(days=6)
    await carrier.house.sweep()
    await carrier.imports.retry(STAFF, later.import_id, no_key())
    carrier.house.watch.forward(days=2)
    await carrier.house.sweep()

    with pytest.raises(ImportForgotten):
        await carrier.imports.retry(STAFF, failed.import_id, no_key())
    assert (await carrier.imports.imported(STAFF, failed.import_id)).status == ImportStatus.FAILED
    await carrier.house.container.importer().work(later.import_id)
    seen = await carrier.imports.imported(STAFF, later.import_id)
    assert seen.failure is not None
    assert seen.failure.code == "header"


async def test_a_file_that_cannot_be_dropped_now_goes_with_the_sweep(
    database_url: str, postgres: Postgres
) -> None:
    kept = Statement(sa.text("SELECT count(*) FROM inventory.import_upload"))
    async with line_to(database_url, late=0) as (url, line):
        far = Postgres(url, PoolSize(1, 2, 5))
        carrier = Carrier(build("sql", far))
        upload = await carrier.upload(OURS.encode())
        await line.switch(Mode.CUT)

        await carrier.imports.discard(STAFF, upload)

        await line.switch(Mode.PASS)
        async with postgres.reading() as session:
            assert await session.value(kept) == 1
        carrier.house.watch.forward(hours=2)
        await carrier.house.sweep()
        async with postgres.reading() as session:
            assert await session.value(kept) == 0
        await far.close()


async def test_imports_of_long_ago_are_forgotten_with_their_errors(carrier: Carrier) -> None:
    old = await carrier.bring("sku,name,price\nH-1,x,bad\n")
    carrier.house.watch.forward(days=89)
    await carrier.house.sweep()
    assert len(await carrier.errors(old)) == 1
    young = await carrier.bring(OURS)

    carrier.house.watch.forward(days=2)
    await carrier.house.sweep()

    with pytest.raises(ImportNotFound):
        await carrier.errors(old)
    assert (await carrier.imports.imported(STAFF, young.import_id)).status == ImportStatus.DONE


async def test_an_import_is_started_once_per_attempt(carrier: Carrier) -> None:
    attempt = no_key()
    done = await carrier.bring(OURS)
    upload = await carrier.upload(OURS.encode())
    command = NewImport(sha256=upload.sha256, format=ImportFormat.CSV)

    first = await carrier.imports.start(STAFF, upload, command, attempt)
    second = await carrier.imports.start(STAFF, upload, command, attempt)

    assert first == second
    assert first.import_id != done.import_id


async def test_pages_of_errors_follow_the_file(carrier: Carrier) -> None:
    done = await carrier.bring("sku,name,price\n" + "H-1,x,bad\n" * 5)

    first = await carrier.imports.errors(STAFF, done.import_id, PageQuery(limit=3))
    cursor = first.next_cursor
    second = await carrier.imports.errors(STAFF, done.import_id, PageQuery(limit=3, cursor=cursor))

    assert [error.line for error in (*first.items, *second.items)] == [2, 3, 4, 5, 6]
    assert second.next_cursor is None
    with pytest.raises(ImportNotFound):
        await carrier.imports.errors(STAFF, new_id(), PageQuery())


async def test_a_large_file_takes_many_batches_and_loses_no_row(carrier: Carrier) -> None:
    rows = [f'I-{n},"Number {n},\nin two lines",{n}.50,{n % 7}' for n in range(3500)]
    data = "\ufeffsku,name,price,on_hand\n" + "\n".join(rows)

    done = await carrier.bring(data, piece=777)

    assert counts(done) == (3500, 3500, 0, 0, 0)
    assert await carrier.house.catalogue.count() == 3500
    last = await carrier.house.catalogue.product_by_sku(STAFF, "I-3499")
    assert (last.name, last.available) == ("Number 3499,\nin two lines", 6)


async def test_a_name_that_cannot_be_kept_is_an_error_of_its_line(carrier: Carrier) -> None:
    line: dict[str, Any] = {
        "sku": "J-1",
        "name": "One",
        "price": {"amount": 100, "currency": "EUR"},
    }
    wrong: list[dict[str, Any]] = [
        {"\x00": 1},
        {"options": {"a\x00": "b"}},
        {"attributes": {"a\x00": "b"}},
        {"translations": {"\x00": {}}},
        {"attributes": {"\ud800": "b"}},
    ]

    lines = (json.dumps(line | part) for part in wrong)

    done = await carrier.bring("\n".join(lines), format="ndjson")

    assert (done.status, done.rows.failed) == (ImportStatus.DONE, 5)
    fields = {error.field for error in await carrier.errors(done)}
    assert "/\ufffd" in fields
    assert not any("\x00" in field for field in fields)


async def test_an_amount_to_compare_with_needs_a_price_beside_it(carrier: Carrier) -> None:
    """Or it would be read in the row's currency, and kept in the product's."""
    await carrier.bring("sku,name,price,currency\nK-1,One,10,EUR\n")

    done = await carrier.bring("sku,price,currency,compare_at\nK-1,,JPY,100\nK-1,5,EUR,6\n")

    assert counts(done) == (2, 0, 1, 0, 1)
    found = [(error.line, error.field, error.code) for error in await carrier.errors(done)]
    assert found == [(2, "compare_at", "price_missing")]
