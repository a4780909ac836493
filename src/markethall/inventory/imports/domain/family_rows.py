"""Validate the families in imported files, and the columns of their CSV format."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from markethall.inventory.catalogue.contract.families import FamilyStatus, SeoView
from markethall.inventory.catalogue.domain.families import Family
from markethall.inventory.catalogue.domain.products import sort_like_jsonb, to_stored_value
from markethall.inventory.imports.contract import ImportedFamily, ImportFormat
from markethall.inventory.imports.domain.csv_columns import (
    ABSENT,
    InvalidCell,
    parse_json_cell,
    parse_list_cell,
    to_json_value,
)
from markethall.inventory.imports.domain.file_records import (
    FileRecord,
    RowError,
    RowWarning,
    UnreadableFile,
)
from markethall.inventory.imports.domain.record_parser import (
    FileChunk,
    fit_cells,
    read_csv_records,
)
from markethall.inventory.imports.domain.row_validation import (
    FamilyRow,
    FieldLocator,
    ReadStep,
    RowResult,
    WooReferences,
    row_errors,
)
from markethall.shared.kernel.csv_format import escape_formula, unescape_formula

# The stored values of fields that an import sets to null. Other fields store None.
_EMPTY_VALUES: Final[Mapping[str, Any]] = {"description": "", "images": ()}


def validate_family(
    line: int,
    values: Mapping[str, Any],
    locate: FieldLocator,
    *,
    warnings: tuple[RowWarning, ...] = (),
    woo: WooReferences | None = None,
) -> FamilyRow | tuple[RowError, ...]:
    """Validate the values of a family. Return its row, or the errors."""
    try:
        command = ImportedFamily.model_validate(values)
    except ValidationError as error:
        return row_errors(error, locate)
    fields = {
        name: _stored_value(name, getattr(command, name))
        for name in command.model_fields_set
        if name != "label"
    }
    return FamilyRow(line, command.label, fields, locate, warnings, woo)


def _stored_value(name: str, value: Any) -> Any:
    if name == "seo":
        title, description = (value.title, value.description) if value else (None, None)
        return SeoView(title=title, description=description)
    if name in {"metadata", "translations"}:
        entries = {key: part for key, part in (value or {}).items() if part is not None}
        return sort_like_jsonb(entries) if name == "metadata" else to_stored_value(entries)
    return _EMPTY_VALUES.get(name) if value is None else to_stored_value(value)


@dataclass(frozen=True)
class FamilyColumn:
    """A column of the CSV of families. `read` returns a value for the model or ABSENT.

    `read` raises InvalidCell.
    """

    name: str
    read: Callable[[str], Any]
    write: Callable[[Family], str]


def _text_column(name: str, empty: Any = None) -> FamilyColumn:
    """Build a column in which an empty cell means `empty`."""
    return FamilyColumn(
        name,
        lambda text: unescape_formula(text) if text else empty,
        lambda family: escape_formula(getattr(family, name) or ""),
    )


def _seo_column(name: str) -> FamilyColumn:
    return FamilyColumn(
        f"seo_{name}",
        lambda text: unescape_formula(text) or None,
        lambda family: escape_formula(getattr(family.seo, name) or ""),
    )


def _json_column(name: str, read: Callable[[str], Any]) -> FamilyColumn:
    def write(family: Family) -> str:
        value = to_json_value(getattr(family, name))
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if value else ""

    return FamilyColumn(name, read, write)


# the export writes the columns in this order
FAMILY_COLUMNS: Final[Mapping[str, FamilyColumn]] = {
    column.name: column
    for column in (
        _text_column("label", ""),
        _text_column("slug", ABSENT),
        _text_column("name"),
        _text_column("description", ""),
        _text_column("category"),
        _json_column("images", parse_list_cell),
        _seo_column("title"),
        _seo_column("description"),
        _json_column("metadata", lambda text: parse_json_cell(text) if text else {}),
        _json_column("translations", lambda text: parse_json_cell(text) if text else {}),
        FamilyColumn(
            "status", lambda text: text or ABSENT, lambda family: FamilyStatus(family.status).value
        ),
    )
}
FAMILY_HEADER: Final = tuple(FAMILY_COLUMNS)
_SEO_COLUMNS: Final[Mapping[str, str]] = {
    "seo_title": "title",
    "seo_description": "description",
}


def family_to_cells(family: Family) -> list[str]:
    return [column.write(family) for column in FAMILY_COLUMNS.values()]


def describe_change(before: Family, after: Family, name: str) -> str:
    """Format the change of a field for a message, each value with at most 80 characters."""
    return " -> ".join(_format_field(family, name) for family in (before, after))


def _format_field(family: Family, name: str) -> str:
    columns = _SEO_COLUMNS if name == "seo" else (name,)
    text = ", ".join(FAMILY_COLUMNS[column].write(family) for column in columns)
    return repr(text[:80])


def is_families_csv(header: Sequence[str]) -> bool:
    names = {name.strip().lower() for name in header}
    return "label" in names and "sku" not in names


class FamilyCsvReader:
    """Reader of the CSV of families. The columns may be in any order; only `label` is required."""

    format = ImportFormat.FAMILIES
    file_index = None

    def __init__(self, header: Sequence[str], delimiter: str) -> None:
        """Raises UnreadableFile."""
        self._header = [name.strip().lower() for name in header]
        # maps each name in lower case to its spelling in the file, for error messages
        self._names = dict(zip(self._header, header, strict=True))
        self._delimiter = delimiter
        unknown = [name[:40] for name in self._header if name not in FAMILY_COLUMNS]
        if unknown:
            names = ", ".join(unknown[:5])
            raise UnreadableFile("header", f"There are columns that are not known: {names}.")
        if len(self._names) != len(header):
            raise UnreadableFile("header", "The first line names a column twice.")
        if self._names.keys() & _SEO_COLUMNS.keys() not in (set(), set(_SEO_COLUMNS)):
            message = (
                "The file needs both seo_title and seo_description, because they are replaced "
                "together."
            )
            raise UnreadableFile("header", message)

    def read_steps(self, chunk: FileChunk) -> Iterator[ReadStep]:
        for record in read_csv_records(chunk, self._delimiter):
            is_blank = not record.error and not any(record.cells)
            rows = () if is_blank else (self._validate_record(record),)
            yield ReadStep(rows, len(rows), record.next_position, record.size)

    def _validate_record(self, record: FileRecord) -> RowResult:
        if record.error:
            return (record.error,)
        cells = fit_cells(record.cells, len(self._header))
        if len(cells) != len(self._header):
            message = f"has {len(record.cells)} cells, and the first line {len(self._header)}"
            return (RowError(record.line, "", "ragged", message),)
        values: dict[str, Any] = {}
        errors = []
        for name, text in zip(self._header, cells, strict=True):
            try:
                value = FAMILY_COLUMNS[name].read(text)
            except InvalidCell as error:
                errors.append(RowError(record.line, self._names[name], "invalid", str(error)))
            else:
                _set_value(values, name, value)
        return tuple(errors) or validate_family(
            record.line, values, lambda path: (record.line, self._column_of(path))
        )

    def _column_of(self, path: tuple[Any, ...]) -> str:
        name = "_".join(str(part) for part in path[:2]) if path[:1] == ("seo",) else str(path[0])
        return self._names.get(name, name[:100])


def _set_value(values: dict[str, Any], column: str, value: Any) -> None:
    if value is ABSENT:
        return
    if column in _SEO_COLUMNS:
        values.setdefault("seo", {})[_SEO_COLUMNS[column]] = value
    else:
        values[column] = value
