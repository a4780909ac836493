"""A configuration item. Staff change items, and the totals of orders are computed from them."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError

from markethall.shared.kernel.errors import ValidationFailed


class ItemKind(StrEnum):
    SHOP = "shop"
    SHIPPING_METHOD = "shipping_method"
    TAX_RATE = "tax_rate"
    # promotions have a table of their own; only `list_all_items` returns them as items
    PROMOTION = "promotion"


@dataclass(frozen=True)
class ConfigurationItem:
    """An item of one kind. `fields` is JSON; `unique_key` is unique among the items of its kind."""

    kind: ItemKind
    item_id: UUID
    unique_key: str
    fields: str
    version: int
    created_at: datetime

    def change(self, unique_key: str, fields: str) -> "ConfigurationItem":
        return replace(self, unique_key=unique_key, fields=fields, version=self.version + 1)


F = TypeVar("F", bound=BaseModel)


def apply_merge_patch(model: type[F], current: F, patch: BaseModel) -> F:
    """Return the fields after a JSON merge patch (RFC 7396) of whole fields.

    A null resets a field to its default. Raises ValidationFailed.
    """
    values = {name: getattr(current, name) for name in model.model_fields}
    for name in patch.model_fields_set:
        value = getattr(patch, name)
        if value is None:
            values.pop(name)
        else:
            values[name] = value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ValidationFailed(errors=_to_errors(error)) from None


def _to_errors(error: ValidationError) -> list[dict[str, str]]:
    return [
        {
            "field": "".join(f"/{part}" for part in one["loc"]),
            "code": one["type"],
            "message": one["msg"],
        }
        for one in error.errors(include_url=False, include_input=False, include_context=False)
    ]
