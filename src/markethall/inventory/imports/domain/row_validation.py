"""A row, validated: what it wants a product to be."""

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
# stand in for what a row need not say of a product that is there already
_PLACEHOLDERS: Final[Mapping[str, Any]] = MappingProxyType(
    {"name": "-", "price": MappingProxyType({"amount": 0, "currency": "EUR"})}
)

# where pydantic found something -> what it is called in the file
FieldNamer = Callable[[tuple[Any, ...]], str]


@dataclass(frozen=True)
class ValidatedRow:
    """A row that makes sense. `given`: what it says of the product; the rest stays as it is."""

    line: int
    # as it would be if it were new; made with the draft, while the database is busy
    product: Product
    on_hand: int | None
    provided_fields: frozenset[str]
    missing_field_errors: tuple[RowError, ...] = ()

    @property
    def sku_key(self) -> str:
        """Case does not count in a sku."""
        return self.product.sku.lower()

    def to_product(self, product_id: UUID, now: datetime) -> Product:
        assigned = {"product_id": product_id, "created_at": now, "updated_at": now}
        # not replace(): it costs as much as all else that is done for a row here
        return Product(**(vars(self.product) | assigned))

    def apply_to(self, product: Product, now: datetime) -> bool:
        """False when the product is so already."""
        return product.copy_fields_from(self.product, self.provided_fields, now)


# a row that stands for a product: a draft, or what is wrong with it
RowResult = ValidatedRow | tuple[RowError, ...]


class ReadStep(NamedTuple):
    """Some records that belong together, and where the reading stands behind them."""

    rows: tuple[RowResult, ...]
    record_count: int
    next_position: FilePosition


def validate_row(line: int, values: Mapping[str, Any], field_name: FieldNamer) -> RowResult:
    """`values` are those that the row gives."""
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
