"""Validate the families in imported files, and the columns of their CSV format."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from markethall.inventory.catalogue.contract.families import FamilyStatus, SeoView
from markethall.inventory.catalogue.domain.families import Family
from markethall.inventory.catalogue.domain.products import sort_like_jsonb, to_stored_value
from markethall.inventory.imports.contract import ImportedFamily, ImportFormat
from markethall.inventory.imports.domain.csv_columns import (
    ABSENT,
    CsvColumn,
    check_columns,
    json_column,
    list_column,
    read_cells,
    text_column,
)
from markethall.inventory.imports.domain.file_records import (
    FileChunk,
    FileRecord,
    RowError,
    RowWarning,
    UnreadableFile,
    read_csv_rows,
)
from markethall.inventory.imports.domain.row_validation import (
    FamilyRow,
    FieldLocator,
    ReadStep,
    RowResult,
    WooReferences,
    read_each,
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


def _seo_column(name: str) -> CsvColumn[Family]:
    return CsvColumn(
        f"seo_{name}",
        lambda text, _: unescape_formula(text) or None,
        lambda family: escape_formula(getattr(family.seo, name) or ""),
    )


# the export writes the columns in this order
FAMILY_COLUMNS: Final[Mapping[str, CsvColumn[Family]]] = {
    column.name: column
    for column in (
        text_column("label", ""),
        text_column("slug", ABSENT),
        text_column("name", None),
        text_column("description", ""),
        text_column("category", None),
        list_column("images"),
        _seo_column("title"),
        _seo_column("description"),
        json_column("metadata", dict),
        json_column("translations", dict),
        CsvColumn(
            "status",
            lambda text, _: text or ABSENT,
            lambda family: FamilyStatus(family.status).value,
        ),
    )
}
FAMILY_HEADER: Final = tuple(FAMILY_COLUMNS)
_READERS: Final = {column.name: column.read for column in FAMILY_COLUMNS.values()}
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
        check_columns(self._header, FAMILY_COLUMNS)
        if self._names.keys() & _SEO_COLUMNS.keys() not in (set(), set(_SEO_COLUMNS)):
            message = (
                "The file needs both seo_title and seo_description, because they are replaced "
                "together."
            )
            raise UnreadableFile("header", message)

    def read_steps(self, chunk: FileChunk) -> Iterator[ReadStep]:
        return read_each(
            read_csv_rows(chunk, self._delimiter, len(self._header)), self._validate_record
        )

    def _validate_record(self, record: FileRecord) -> RowResult:
        line, cells = record.line, dict(zip(self._header, record.cells, strict=True))
        values, errors = read_cells(cells, "", _READERS, lambda name: (line, self._names[name]))
        if "seo_title" in values:
            values["seo"] = {part: values.pop(name) for name, part in _SEO_COLUMNS.items()}
        return errors or validate_family(line, values, lambda path: (line, self._column_of(path)))

    def _column_of(self, path: tuple[Any, ...]) -> str:
        name = "_".join(str(part) for part in path[:2]) if path[:1] == ("seo",) else str(path[0])
        return self._names.get(name, name[:100])
