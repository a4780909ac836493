"""Read the report of a provider from the lines of a CSV file.

A file has our own columns (`COLUMNS`), or the columns of the provider, which its gateway parses.
"""

import csv
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, NoReturn
from uuid import UUID

from markethall.payments.contract.errors import ReportFileInvalid, UnsupportedByProvider
from markethall.payments.contract.reconciliation import ReportKind
from markethall.payments.domain.reconciliation import ReportLine
from markethall.shared.kernel.model import MAX_AMOUNT
from markethall.shared.kernel.money import EXPONENT_BY_CURRENCY, Money, parse_major_units

COLUMNS: Final = (
    "kind",
    "amount",
    "currency",
    "occurred_at",
    "reference",
    "operation_id",
    "fee",
    "fee_currency",
)
_REQUIRED: Final = frozenset(COLUMNS[:4])
MAX_FILE_BYTES: Final = 512 * 1024 * 1024
MAX_ROW_BYTES: Final = 64 * 1024
# reading stops after this number of errors
MAX_ERRORS: Final = 20
MAX_REFERENCE_LENGTH: Final = 255
_BOM: Final = b"\xef\xbb\xbf"
_QUOTE: Final = b'"'

Row = Mapping[str, str]


class InvalidReportCell(Exception):
    """The cell of a column cannot be read."""

    def __init__(self, column: str, message: str) -> None:
        super().__init__(f"{column}: {message}")
        self.column = column
        self.message = message


@dataclass(frozen=True)
class _Record:
    """The cells of a row, and the number of its first line."""

    line: int
    cells: Sequence[str]


class ReportFile:
    """Reads the lines of a file.

    `parse_foreign_row` parses a row with the columns of the provider. It raises
    UnsupportedByProvider if the provider has no such files.
    """

    def __init__(self, parse_foreign_row: Callable[[Row], ReportLine]) -> None:
        self._parse_foreign_row = parse_foreign_row
        self._errors: list[dict[str, object]] = []

    async def read(self, lines: AsyncIterable[bytes]) -> AsyncIterator[ReportLine]:
        """Yield the lines before the first error. Raises ReportFileInvalid.

        Reading continues after an error, so that the exception lists several errors.
        """
        header: _Record | None = None
        async for record in self._records(lines):
            if header is None:
                header = self._read_header(record)
            elif (line := self._parse(header, record)) and not self._errors:
                yield line
        if header is None:
            self._add_error(1, "", "the file is empty")
        self._raise_errors()

    def _read_header(self, record: _Record) -> _Record:
        self._raise_errors()
        names = [cell.strip() for cell in record.cells]
        if len(set(names)) < len(names):
            self._fail(record.line, "two columns have the same name")
        return _Record(record.line, names)

    def _parse(self, header: _Record, record: _Record) -> ReportLine | None:
        names, cells = header.cells, [cell.strip() for cell in record.cells]
        if not any(cells):
            return None
        if any(cells[len(names) :]) or len(cells) < len(names):
            message = f"has {len(cells)} cells, but the first line has {len(names)}"
            self._add_error(record.line, "", message)
            return None
        parse = parse_row if set(names) >= _REQUIRED else self._parse_foreign_row
        try:
            line = parse(dict(zip(names, cells, strict=False)))
        except InvalidReportCell as error:
            self._add_error(record.line, error.column, error.message)
            return None
        except UnsupportedByProvider:
            missing = ", ".join(name for name in COLUMNS if name in _REQUIRED - set(names))
            self._fail(header.line, f"the columns {missing} are missing")
        return replace(line, line=record.line)

    async def _records(self, lines: AsyncIterable[bytes]) -> AsyncIterator[_Record]:
        """Yield the rows. A row with quoted line ends has several lines."""
        number, size, delimiter = 0, 0, ","
        pending, first_line = b"", 1
        async for line in lines:
            number, size = number + 1, size + len(line)
            if size > MAX_FILE_BYTES:
                self._fail(number, f"the file has more than {MAX_FILE_BYTES} bytes")
            if number == 1:
                line = line.removeprefix(_BOM)  # noqa: PLW2901 - the mark is not part of the line
                delimiter = _delimiter_of(line)
            pending, first_line = pending + line, first_line if pending else number
            if len(pending) > MAX_ROW_BYTES:
                self._fail(first_line, f"the row has more than {MAX_ROW_BYTES} bytes")
            # an odd number of quotes: a quoted cell goes on in the next line
            if pending.count(_QUOTE) % 2 == 0:
                yield _Record(first_line, self._cells(pending, delimiter, first_line))
                pending = b""
        if pending:
            self._fail(first_line, "a quoted cell does not end")

    def _cells(self, row: bytes, delimiter: str, line: int) -> Sequence[str]:
        try:
            text = row.decode()
            if "\x00" in text:
                raise ValueError("has a NUL character")
            return next(csv.reader([text], delimiter=delimiter, strict=True), [])
        except UnicodeDecodeError:
            self._add_error(line, "", "is not UTF-8")
        except (csv.Error, ValueError) as error:
            self._add_error(line, "", str(error))
        return []

    def _add_error(self, line: int, column: str, message: str) -> None:
        self._errors.append({"line": line, "column": column, "message": message})
        if len(self._errors) >= MAX_ERRORS:
            self._raise_errors()

    def _fail(self, line: int, message: str) -> NoReturn:
        error = {"line": line, "column": "", "message": message}
        raise ReportFileInvalid(errors=[*self._errors, error])

    def _raise_errors(self) -> None:
        if self._errors:
            raise ReportFileInvalid(errors=self._errors)


def parse_row(row: Row) -> ReportLine:
    """Parse a row of our own format. Raises InvalidReportCell."""
    kind = _parse_kind(row["kind"])
    currency = parse_currency("currency", row["currency"])
    fee_text = row.get("fee", "")
    reference, id_text = row.get("reference", ""), row.get("operation_id", "")
    if not (reference or id_text) and kind is not ReportKind.OTHER:
        raise InvalidReportCell("reference", "is empty, and there is no operation_id")
    return ReportLine(
        kind=kind,
        amount=parse_amount("amount", row["amount"], currency, kind),
        occurred_at=parse_time("occurred_at", row["occurred_at"]),
        reference=parse_reference("reference", reference),
        operation_id=parse_id("operation_id", id_text),
        fee=_parse_fee(fee_text, row.get("fee_currency") or currency) if fee_text else None,
    )


def parse_amount(column: str, text: str, currency: str, kind: ReportKind) -> Money:
    """Parse a decimal number; only a payment must not be negative. Raises InvalidReportCell."""
    if text.startswith("-") and kind is ReportKind.PAYMENT:
        raise InvalidReportCell(column, "must not be negative for a payment")
    try:
        amount = parse_major_units(text.removeprefix("-"), currency)
    except ValueError as error:
        raise InvalidReportCell(column, str(error)) from None
    if amount > MAX_AMOUNT:
        raise InvalidReportCell(column, "is too large")
    return Money(amount=amount, currency=currency)


def parse_currency(column: str, text: str) -> str:
    """Raises InvalidReportCell."""
    code = text.upper()
    if code not in EXPONENT_BY_CURRENCY:
        raise InvalidReportCell(column, "must be an ISO 4217 currency code such as EUR")
    return code


def parse_time(column: str, text: str) -> datetime:
    """Parse an ISO 8601 date or time, in UTC if it has no offset. Raises InvalidReportCell."""
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        message = "must be a date or time such as 2026-11-29T18:30:00Z"
        raise InvalidReportCell(column, message) from None


def parse_reference(column: str, text: str) -> str:
    """Raises InvalidReportCell."""
    if len(text) > MAX_REFERENCE_LENGTH:
        raise InvalidReportCell(column, f"has more than {MAX_REFERENCE_LENGTH} characters")
    return text


def parse_id(column: str, text: str) -> UUID | None:
    """Raises InvalidReportCell."""
    try:
        return UUID(text) if text else None
    except ValueError:
        raise InvalidReportCell(column, "must be a UUID") from None


def _parse_kind(text: str) -> ReportKind:
    try:
        return ReportKind(text)
    except ValueError:
        raise InvalidReportCell("kind", f"must be one of {', '.join(ReportKind)}") from None


def _parse_fee(text: str, currency_text: str) -> Money:
    currency = parse_currency("fee_currency", currency_text)
    fee = parse_amount("fee", text, currency, ReportKind.OTHER)
    return Money(amount=-fee.amount, currency=currency) if text.startswith("-") else fee


def _delimiter_of(header: bytes) -> str:
    """Return the most frequent of comma, semicolon and tab."""
    return max(",;\t", key=lambda character: header.count(character.encode()))
