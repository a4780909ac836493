"""The contract of order lookups, for buyers who have lost their token."""

from typing import Protocol

from markethall.orders.contract.commands import OrderNumber
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.email_address import EmailAddress
from markethall.shared.kernel.model import RequestModel


class LookUpOrder(RequestModel):
    """The number of an order, and the e-mail address that the buyer gave for it."""

    number: OrderNumber
    email: EmailAddress


class OrderLookups(Protocol):
    """Lookups of orders by anyone who knows the number and the e-mail address."""

    async def request(self, ctx: CallContext, command: LookUpOrder) -> None:
        """Store the lookup. Event handlers then find the order, and send a link to its address.

        Neither the result nor the duration shows whether such an order exists. Raises
        TooManyRequests after too many lookups with one address.
        """
