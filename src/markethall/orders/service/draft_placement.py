"""Place the order of a draft for its buyer."""

from markethall.orders.carts.contract import ReadinessProblem
from markethall.orders.contract import OrderView, PlaceOrder
from markethall.orders.drafts.domain import DraftOrder
from markethall.orders.service.checkout import Checkout
from markethall.orders.service.checkout_parts import GUEST_WITHOUT_EMAIL, DraftSource
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.users.contract import Customer, UserInactive, UserNotFound, Users


class DraftPlacer:
    """Implementation of `DraftPlacement`."""

    def __init__(self, checkout: Checkout, users: Users) -> None:
        self._checkout = checkout
        self._users = users

    async def find_buyer_problem(
        self, ctx: CallContext, draft: DraftOrder
    ) -> ReadinessProblem | None:
        customer_id = draft.fields.customer_id
        if customer_id is None:
            return None
        try:
            customer = await self._users.get_active_customer(ctx, customer_id)
        except (UserNotFound, UserInactive) as error:
            return ReadinessProblem(code=error.code, field="/customer_id", message=error.detail)
        if draft.fields.email or customer.email:
            return None
        return ReadinessProblem(code="missing", field="/email", message=GUEST_WITHOUT_EMAIL)

    async def place_draft(
        self, ctx: CallContext, draft: DraftOrder, command: PlaceOrder, attempt: IdempotentCommand
    ) -> OrderView:
        buyer = _buyer_without_account(draft)
        buyer_ctx = ctx.model_copy(update={"actor": Actor(user_id=draft.buyer_id)})
        source = DraftSource(draft.ref, ctx.actor.audit_name, buyer)
        return await self._checkout.place_from(buyer_ctx, command, attempt, source)


def _buyer_without_account(draft: DraftOrder) -> Customer | None:
    """Return a buyer without an account, or None if the draft has a customer."""
    if draft.fields.customer_id:
        return None
    email = draft.fields.email or ""
    return Customer(user_id=draft.buyer_id, email=email, full_name=None, is_guest=True)
