"""Reports from CSV files: our own columns, and errors with line numbers."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from markethall.payments.contract.errors import ReportFileInvalid, UnsupportedByProvider
from markethall.payments.contract.reconciliation import ReportKind
from markethall.payments.domain.reconciliation import ReportLine
from markethall.payments.domain.report_files import MAX_ERRORS, MAX_ROW_BYTES, ReportFile
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money

HEADER = "kind,amount,currency,occurred_at,reference,operation_id,fee,fee_currency\n"
SHORT = "kind,amount,currency,occurred_at,reference\n"
ROW = "payment,19.99,EUR,2026-11-20T10:00:00Z,a\n"


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    for line in content.splitlines(keepends=True):
        yield line


def refuse_row(row: Mapping[str, str]) -> ReportLine:
    raise UnsupportedByProvider(provider="toy", capability="report")


async def read(
    content: str | bytes, parser: Callable[[Mapping[str, str]], ReportLine] = refuse_row
) -> list[ReportLine]:
    encoded = content.encode() if isinstance(content, str) else content
    return [line async for line in ReportFile(parser).read(chunks(encoded))]


async def errors_of(content: str | bytes) -> list[tuple[int, str, str]]:
    with pytest.raises(ReportFileInvalid) as raised:
        await read(content)
    return [(one["line"], one["column"], one["message"]) for one in raised.value.details["errors"]]


async def test_all_columns_are_read() -> None:
    operation_id = new_id()

    (line,) = await read(
        HEADER + f"refund,-5.00,EUR,2026-11-20T12:00:00+02:00,re_1,{operation_id},0.30,USD\n"
    )

    assert line == ReportLine(
        kind=ReportKind.REFUND,
        amount=Money(amount=500, currency="EUR"),
        occurred_at=datetime(2026, 11, 20, 10, tzinfo=UTC),
        reference="re_1",
        operation_id=operation_id,
        fee=Money(amount=30, currency="USD"),
        line=2,
    )


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
async def test_delimiters_line_ends_and_byte_order_mark_are_recognized(
    delimiter: str, end: str
) -> None:
    text = (SHORT + ROW).replace(",", delimiter).replace("\n", end)

    (line,) = await read(b"\xef\xbb\xbf" + text.encode())

    assert (line.reference, line.line) == ("a", 2)


async def test_quoted_line_end_and_empty_lines_keep_the_line_numbers() -> None:
    text = SHORT + 'payment,1,EUR,2026-11-20,"a\nb"\n\n,,,,\npayment,1,JPY,2026-11-20,c'

    first, second = await read(text)

    assert (first.reference, first.line) == ("a\nb", 2)
    assert (second.line, second.amount.amount) == (6, 1)


async def test_time_without_offset_is_utc() -> None:
    day, time = await read(
        SHORT + "payment,1,EUR,2026-11-20,a\npayment,1,EUR,2026-11-20 23:59:59,b\n"
    )

    assert day.occurred_at == datetime(2026, 11, 20, tzinfo=UTC)
    assert time.occurred_at == datetime(2026, 11, 20, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        ("charge,1,EUR,2026-11-20,a", "kind", "must be one of payment, refund, reversal, other"),
        ("payment,-1,EUR,2026-11-20,a", "amount", "must not be negative for a payment"),
        ("payment,1e5,EUR,2026-11-20,a", "amount", "must be a decimal number such as 19.99"),
        ("payment,1.999,EUR,2026-11-20,a", "amount", "has more decimals than EUR"),
        ("payment,9999999999999999,EUR,2026-11-20,a", "amount", "is too large"),
        (
            "payment,1,EURO,2026-11-20,a",
            "currency",
            "must be an ISO 4217 currency code such as EUR",
        ),
        (
            "payment,1,EUR,20.11.2026,a",
            "occurred_at",
            "must be a date or time such as 2026-11-29T18:30:00Z",
        ),
        (
            "payment,1,EUR,0001-01-01T00:00:00+14:00,a",
            "occurred_at",
            "must be a date or time such as 2026-11-29T18:30:00Z",
        ),
        ("payment,1,EUR,2026-11-20,", "reference", "is empty, and there is no operation_id"),
        (f"payment,1,EUR,2026-11-20,{'x' * 256}", "reference", "has more than 255 characters"),
        ("payment,1,EUR,2026-11-20,a,b", "", "has 6 cells, but the first line has 5"),
        ("payment", "", "has 1 cells, but the first line has 5"),
        ("payment,1,EUR,2026-11-20,a\x00", "", "has a NUL character"),
        ('payment,1,EUR,2026-11-20,"a"b""', "", "',' expected after '\"'"),
        ('payment,1,EUR,2026-11-20,"a', "", "a quoted cell does not end"),
    ],
)
async def test_invalid_row_is_named_by_line_and_column(row: str, column: str, message: str) -> None:
    assert await errors_of(SHORT + ROW + row + "\n") == [(3, column, message)]


async def test_operation_id_and_fee_are_checked() -> None:
    rows = "payment,1,EUR,2026-11-20,a,x,,\npayment,1,EUR,2026-11-20,a,,1,XXX\n"

    assert [error[:2] for error in await errors_of(HEADER + rows)] == [
        (2, "operation_id"),
        (3, "fee_currency"),
    ]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", (1, "", "the file is empty")),
        ("kind,amount\n1,1\n", (1, "", "the columns currency, occurred_at are missing")),
        ("kind,kind," + SHORT, (1, "", "two columns have the same name")),
        (b"kind,\xff\n", (1, "", "is not UTF-8")),
        (
            (SHORT + "x" * (MAX_ROW_BYTES + 1)),
            (2, "", f"the row has more than {MAX_ROW_BYTES} bytes"),
        ),
    ],
)
async def test_file_that_is_no_report_is_refused(
    content: str | bytes, error: tuple[int, str, str]
) -> None:
    assert (await errors_of(content))[0] == error


async def test_reading_stops_after_several_errors() -> None:
    errors = await errors_of(SHORT + "x\n" * 1000)

    assert [line for line, _, _ in errors] == list(range(2, 2 + MAX_ERRORS))


async def test_no_line_is_used_after_the_first_error() -> None:
    lines = ReportFile(refuse_row).read(chunks((SHORT + ROW + "x\n" + ROW).encode()))

    first = await anext(lines)
    with pytest.raises(ReportFileInvalid):
        await anext(lines)

    assert first.line == 2


async def test_columns_of_the_provider_are_parsed_by_its_gateway() -> None:
    known = ReportLine(
        kind=ReportKind.OTHER,
        amount=Money.zero("EUR"),
        occurred_at=datetime(2026, 11, 20, tzinfo=UTC),
    )

    (line,) = await read("id,net\ntxn_1,5\n", lambda row: replace(known, reference=row["id"]))

    assert (line.reference, line.line) == ("txn_1", 2)
