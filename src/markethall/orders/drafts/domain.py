"""The draft order."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from markethall.orders.carts.domain import Offer
from markethall.orders.drafts.contract import DraftOrderCompleted, DraftStatus, NewDraftOrder
from markethall.orders.pricing.domain import QuoteRequest
from markethall.shared.kernel.ids import derive_uuid7


class DraftRef(NamedTuple):
    """A version of a draft order."""

    draft_order_id: UUID
    version: int


@dataclass(frozen=True)
class DraftOrder:
    draft_order_id: UUID
    fields: NewDraftOrder
    created_by: str
    created_at: datetime
    updated_at: datetime
    status: DraftStatus = DraftStatus.OPEN
    # the order that the completion has placed
    order_id: UUID | None = None
    version: int = 1

    @property
    def ref(self) -> DraftRef:
        return DraftRef(self.draft_order_id, self.version)

    @property
    def buyer_id(self) -> UUID:
        """The id of the customer; without a customer, an id derived from the draft's id."""
        return self.fields.customer_id or derive_uuid7(self.draft_order_id, "buyer")

    @property
    def units_by_product(self) -> Mapping[UUID, int]:
        units: Counter[UUID] = Counter()
        for line in self.fields.lines:
            units[line.product_id] += line.quantity
        return units

    @property
    def requested_lines(self) -> tuple[tuple[UUID, int], ...]:
        """The product of each line, and the sum of its units over all lines."""
        units = self.units_by_product
        return tuple((line.product_id, units[line.product_id]) for line in self.fields.lines)

    def to_quote_request(self, offers: Mapping[UUID, Offer]) -> QuoteRequest:
        """Build the request for a preview of the price, without the products that are not sold."""
        fields = self.fields
        return QuoteRequest(
            customer_id=self.buyer_id,
            lines=tuple(
                offers[product_id].to_quoted_line(quantity)
                for product_id, quantity in self.units_by_product.items()
                if product_id in offers
            ),
            shipping_address=fields.shipping_address,
            currency=fields.currency,
            shipping_method=fields.shipping_method,
            voucher_code=fields.voucher_code,
            is_preview=True,
        )

    def check_open(self) -> None:
        """Raises DraftOrderCompleted."""
        if self.status is not DraftStatus.OPEN:
            raise self.completed_error()

    def completed_error(self) -> DraftOrderCompleted:
        return DraftOrderCompleted(
            draft_order_id=str(self.draft_order_id), order_id=str(self.order_id)
        )

    def change(self, fields: NewDraftOrder, now: datetime) -> "DraftOrder":
        """Return the changed draft, or the same if the fields are the same."""
        if fields == self.fields:
            return self
        return replace(self, fields=fields, updated_at=now, version=self.version + 1)

    def complete(self, order_id: UUID, now: datetime) -> "DraftOrder":
        return replace(
            self,
            status=DraftStatus.COMPLETED,
            order_id=order_id,
            updated_at=now,
            version=self.version + 1,
        )
