"""The contract of the export of orders."""

from collections.abc import AsyncIterator
from typing import Protocol

from markethall.orders.contract.commands import OrderFilters
from markethall.shared.kernel.call_context import CallContext


class OrderExport(Protocol):
    """The export of the orders of all customers, for staff."""

    def export_orders(self, ctx: CallContext, filters: OrderFilters) -> AsyncIterator[bytes]:
        """Yield the chunks of a CSV file with one row for each line of the orders that match."""
