"""The errors that a request may get although it fits the OpenAPI document, with the reasons."""

from collections.abc import Iterator
from typing import Any, Final

from schemathesis import Case, Response
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.core.parameters import ParameterLocation
from schemathesis.openapi.checks import RejectedPositiveData

# Statuses by which a request that fits its schema may be refused, because a schema cannot describe
# who calls (401, 403), which resources exist (404) and in which state they are (409).
BUSINESS_STATUSES: Final = (401, 403, 404, 409)

# maps the `code` of a problem to the reason
REASONS_BY_CODE: Final = {
    "request.if_match_failed": "the schema cannot know which version is the current one",
    "request.if_match_missing": "staff need If-Match for the cart of another owner",
    "orders.currency_mismatch": "a schema cannot know the currencies of the prices of a product",
    "users.password_unacceptable": "a list of common passwords, and the user name, are refused",
    "users.bad_guest_token": "a schema cannot know which tokens have been issued",
    "inventory.image_refused": "a schema cannot describe which files are images",
    "request.card_number": "a schema cannot describe the check digit of a card number",
    "payments.unknown_method": "the configured provider decides which payment methods exist",
    "orders.voucher_invalid": "a schema cannot know which vouchers the shop has",
    "money.currency_mismatch": "a refund is in the currency of its payment",
}
# maps the `code` of the first entry of `errors` to the reason
REASONS_BY_FIELD_ERROR: Final = {
    "int_type": "JSON Schema counts 1.0 as an integer, this API does not",
    "attribute": "JSON Schema counts 1.0 as an integer, this API does not",
    "text_invalid": "no text may have a NUL, also in members that the schema does not describe",
    "not_printable": "a pattern cannot name all characters that are not printable in an SKU",
    "window": "valid_from is before valid_until: JSON Schema compares no two fields",
    "rate_kind": "whether a rate has a price or tiers depends on its kind",
    "promotion_kind": "the values that a promotion has depend on its kind",
    "promotion_window": "a promotion starts before it ends: JSON Schema compares no two fields",
    "currency_named_twice": "each currency is named once: JSON Schema compares whole items only",
    "tier_order": "tiers start at increasing values: JSON Schema compares no two items",
    "same_warehouse": "a transfer has two warehouses: JSON Schema compares no two fields",
    "path_too_long": "the names of a path of categories have limits of their own",
    "too_deep": "the names of a path of categories are counted",
    "not_below_parent": "the path of a category begins with its parent: no two fields compare",
    "line_named_twice": "each line is named once: JSON Schema compares whole items only",
    "product_named_twice": "each product is named once: JSON Schema compares whole items only",
    "buyer_missing": "a draft order names a customer or an e-mail address, either may be null",
    "number_of_lines": "an edit cannot know how many lines the order has",
    "same_cart": "the other cart is not the one in the path: no two parts compare",
    "bad_guest_token": "a schema cannot know which tokens have been issued",
    "currency_missing": "a total has a currency: OpenAPI relates no two parameters",
    "year_out_of_range": "the offset moves a time of the year 1 or 9999 into another in UTC",
    "too_many_units": "the lines of a product are added up: JSON Schema adds nothing up",
}
# maps an operation to the reason why it accepts bodies that do not fit the schema
REASONS_BY_ACCEPTED_BODY: Final = {
    "POST /media": "an invalid part may be an image, whose name and type are ignored",
    "POST /imports": "every body is a file, whose rows are checked in the background",
}
# operations whose body may have members that the schema does not describe: the event of a provider,
# and forms with unknown parameters (RFC 6749, section 3.2)
_WITH_UNKNOWN_MEMBERS: Final = frozenset(
    {"POST /payments/webhooks/{provider}", "POST /token", "POST /token/revoke"}
)
_FLOAT_ERRORS: Final = frozenset({"int_type", "attribute"})


def reason_of(failure: Failure, case: Case[Any], response: Response) -> str | None:
    """Return the reason why the failure is expected, or None if it is a real failure."""
    if isinstance(failure, RejectedPositiveData):
        return _reason_of_problem(case, response.json())
    if isinstance(failure, AcceptedNegativeData) and _is_only_body_invalid(case):
        return REASONS_BY_ACCEPTED_BODY.get(case.operation.label)
    return None


def _is_only_body_invalid(case: Case[Any]) -> bool:
    meta = case.meta
    return meta is not None and {
        location for location in meta.components if meta.is_negative_at(location)
    } == {ParameterLocation.BODY}


def _reason_of_problem(case: Case[Any], problem: dict[str, Any]) -> str | None:
    if problem["code"] != "request.invalid":
        return REASONS_BY_CODE.get(problem["code"])
    code = problem["errors"][0]["code"]
    if code == "text_invalid" and case.operation.label not in _WITH_UNKNOWN_MEMBERS:
        return None
    if code in _FLOAT_ERRORS and not any(isinstance(value, float) for value in _values(case.body)):
        return None
    return REASONS_BY_FIELD_ERROR.get(code)


def _values(body: Any) -> Iterator[Any]:
    """Yield all values in the body, without objects and lists."""
    if isinstance(body, dict | list):
        for value in body.values() if isinstance(body, dict) else body:
            yield from _values(value)
    else:
        yield body
