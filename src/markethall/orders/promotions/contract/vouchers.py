"""The codes of vouchers, and the errors of orders that name one."""

from typing import Annotated

from pydantic import Field

from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.model import VisibleText

VoucherCode = Annotated[
    VisibleText,
    Field(
        min_length=1,
        max_length=50,
        description="Letter case and spaces at both ends are ignored",
        examples=["SPRING10"],
    ),
]


class VoucherInvalid(DomainError):
    """The order cannot use the voucher. Details: voucher_code, reason, condition.

    `reason` is `unknown` (no voucher has this code), `inactive`, `not_started`, `ended` or
    `conditions_not_met`. The last one has a `condition`, which is null otherwise:

    - `min_total`: the subtotal is too small, or the voucher does not apply in the currency.
    - `first_order`: the customer has ordered before.
    - `customer_ids`: the voucher is for other customers.
    - `lines`: the voucher is for other products.
    - `discount`: nothing is left to take off, or another promotion excludes the voucher.
    """

    code = "orders.voucher_invalid"
    status = 422
    title = "The order cannot use this voucher"


class VoucherExhausted(DomainError):
    """The voucher was used as often as it may be. Details: voucher_code, limit.

    `limit` is `usage_limit` or `per_customer_limit`.
    """

    code = "orders.voucher_exhausted"
    status = 409
    title = "The voucher is used up"
