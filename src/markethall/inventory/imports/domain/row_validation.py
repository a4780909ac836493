"""Validate the rows of an imported file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from uuid import UUID

from pydantic import ValidationError

from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.imports.contract import ImportedProduct
from markethall.inventory.imports.domain.file_records import FilePosition, RowError, sanitize

MAX_ERRORS_PER_ROW: Final = 10
_UNASSIGNED_ID: Final = UUID(int=0)
_UNASSIGNED_TIME: Final = datetime.min.replace(tzinfo=UTC)
# values of required fields that a row may omit if its product exists
_PLACEHOLDERS: Final[Mapping[str, Any]] = MappingProxyType(
    {"name": "-", "price": MappingProxyType({"amount": 0, "currency": "EUR"})}
)

# maps the location of a pydantic error to the name of the field in the file
FieldNamer = Callable[[tuple[Any, ...]], str]


@dataclass(frozen=True)
class ValidatedRow:
    """A valid row. If its product exists, only the fields in `provided_fields` are changed."""

    line: int
    # the product that the row would create; building it early uses the time in which the
    # database writes the previous batch
    product: Product
    on_hand: int | None
    provided_fields: frozenset[str]
    missing_field_errors: tuple[RowError, ...] = ()

    @property
    def sku_key(self) -> str:
        return self.product.sku.lower()

    def to_product(self, product_id: UUID, now: datetime) -> Product:
        assigned = {"product_id": product_id, "created_at": now, "updated_at": now}
        # dataclasses.replace() would take twice the time of a whole row
        return Product(**(vars(self.product) | assigned))

    def apply_to(self, product: Product, now: datetime) -> bool:
        """Copy the provided fields. Return False if the product has these values already."""
        return product.copy_fields_from(self.product, self.provided_fields, now)


# a valid row, or the errors of an invalid row
RowResult = ValidatedRow | tuple[RowError, ...]


class ReadStep(NamedTuple):
    """Rows that are read together, and the file position after them."""

    rows: tuple[RowResult, ...]
    record_count: int
    next_position: FilePosition


def validate_row(line: int, values: Mapping[str, Any], field_name: FieldNamer) -> RowResult:
    """Validate the values of a row. Return the row, or its errors."""
    provided = frozenset(values) - {"sku", "on_hand"}
    absent = [name for name in _PLACEHOLDERS if name not in values]
    complete = {**values, **{name: _PLACEHOLDERS[name] for name in absent}}
    try:
        command = ImportedProduct.model_validate(complete)
    except ValidationError as error:
        return _row_errors(line, error, field_name)
    missing_errors = tuple(
        RowError(line, field_name((name,)), "missing", "is required") for name in absent
    )
    product = Product.new(_UNASSIGNED_ID, command, _UNASSIGNED_TIME)
    return ValidatedRow(line, product, command.on_hand, provided, missing_errors)


def _row_errors(line: int, error: ValidationError, field_name: FieldNamer) -> tuple[RowError, ...]:
    details = error.errors(include_url=False, include_context=False)
    return tuple(_row_error(line, detail, field_name) for detail in details[:MAX_ERRORS_PER_ROW])


def _row_error(line: int, detail: Any, field_name: FieldNamer) -> RowError:
    if isinstance(detail["input"], str) and not _is_valid_unicode(detail["input"]):
        return RowError(line, field_name(detail["loc"]), "encoding", "is not UTF-8")
    return RowError(line, field_name(detail["loc"]), detail["type"], _clean_message(detail["msg"]))


def _is_valid_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _clean_message(message: str) -> str:
    return sanitize(message.removeprefix("Value error, "))[:200]
