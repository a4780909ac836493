"""The contract of promotions: the codes and errors of vouchers."""

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
    """The order cannot use the voucher. Details: voucher_code, reason.

    `reason` is `unknown`: no voucher has this code.
    """

    code = "orders.voucher_invalid"
    status = 422
    title = "The order cannot use this voucher"
