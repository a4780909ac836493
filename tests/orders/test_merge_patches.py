"""Test which fields of the merge patches of orders may be null."""

import pytest
from pydantic import BaseModel, ValidationError

from markethall.orders.drafts.contract import ChangeDraftOrder, NewDraftOrder
from markethall.orders.promotions.contract import NewPromotion, PromotionChange
from markethall.orders.shipping.contract import NewShippingMethod, ShippingMethodChange
from markethall.orders.shop.contract import ShopChange, ShopSettings
from markethall.orders.tax.contract import NewTaxRate, TaxRateChange


@pytest.mark.parametrize(
    ("fields", "patch"),
    [
        (NewDraftOrder, ChangeDraftOrder),
        (NewPromotion, PromotionChange),
        (NewShippingMethod, ShippingMethodChange),
        (NewTaxRate, TaxRateChange),
        (ShopSettings, ShopChange),
    ],
)
def test_null_is_refused_for_the_fields_without_a_default(
    fields: type[BaseModel], patch: type[BaseModel]
) -> None:
    assert set(patch.model_fields) == set(fields.model_fields)
    required = {name for name, field in fields.model_fields.items() if field.is_required()}

    refused = {name for name in patch.model_fields if null_errors(patch, name)}
    assert refused == required
    for name in required:
        assert {loc for loc, _ in null_errors(patch, name)} == {name}
        assert "missing" not in {code for _, code in null_errors(patch, name)}
    assert patch.model_validate({}).model_fields_set == set()


def null_errors(patch: type[BaseModel], name: str) -> set[tuple[str | int, str]]:
    """Return the field and the code of each error of a patch in which this field is null."""
    try:
        patch.model_validate({name: None})
    except ValidationError as error:
        return {(one["loc"][0], one["type"]) for one in error.errors()}
    return set()
