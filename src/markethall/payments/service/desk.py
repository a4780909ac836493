"""What the world may ask of payments, over HTTP."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from markethall.payments import contract
from markethall.payments.contract import (
    AccountBalance,
    LedgerReport,
    OperationKind,
    PaymentNotFound,
    PaymentQuery,
    PostingQuery,
    RefundNotFound,
    RefundPayment,
    WebhookReceipt,
)
from markethall.payments.domain import Operation, Payment
from markethall.payments.ports import Database, OperationFilter, PaymentFilter
from markethall.payments.service.charges import Charges
from markethall.payments.service.refunds import Refunds
from markethall.payments.service.webhooks import WebhookIntake
from markethall.shared.auth import PAYMENTS_MANAGE
from markethall.shared.call import Call
from markethall.shared.idempotency import Attempt
from markethall.shared.money import Money
from markethall.shared.pages import Cursors, Page, PageQuery


class PaymentDeskService:
    """Payments, for their owners and for staff."""

    def __init__(
        self,
        database: Database,
        charges: Charges,
        refunds: Refunds,
        webhooks: WebhookIntake,
        cursors: Cursors,
    ) -> None:
        self._database = database
        self._charges = charges
        self._refunds = refunds
        self._webhooks = webhooks
        self._cursors = cursors

    # Reading

    async def payment(self, call: Call, payment_id: UUID) -> contract.Payment:
        return (await self._visible(call, payment_id)).view()

    async def payments(self, call: Call, query: PaymentQuery) -> Page[contract.Payment]:
        owner = query.user_id if call.actor.may(PAYMENTS_MANAGE) else call.user_id
        if query.user_id not in {None, owner}:
            return Page(items=(), next_cursor=None)
        listing = f"payments {owner} {query.order_id} {query.status} {query.sort}"
        wanted = PaymentFilter(
            limit=query.limit + 1,
            descending=query.sort.startswith("-"),
            user_id=owner,
            order_id=query.order_id,
            status=query.status,
            after=_place(self._cursors.decode(listing, query.cursor)),
        )
        async with self._database.reading() as reading:
            found = await reading.payments(wanted)
        views = [payment.view() for payment in found]
        return self._cursors.page(listing, views, query.limit, _place_of)

    async def operations(
        self, call: Call, payment_id: UUID, query: PageQuery
    ) -> Page[contract.Operation]:
        await self._visible(call, payment_id)
        found = await self._operations(payment_id, None, query)
        views = [operation.view() for operation in found]
        return self._cursors.page(f"operations {payment_id} None", views, query.limit, _made_at)

    async def refunds(
        self, call: Call, payment_id: UUID, query: PageQuery
    ) -> Page[contract.Refund]:
        payment = await self._visible(call, payment_id)
        found = await self._operations(payment_id, OperationKind.REFUND, query)
        views = [operation.refund_view(payment) for operation in found]
        listing = f"operations {payment_id} {OperationKind.REFUND}"
        return self._cursors.page(listing, views, query.limit, _refunded_at)

    async def refund_of(self, call: Call, payment_id: UUID, refund_id: UUID) -> contract.Refund:
        payment = await self._visible(call, payment_id)
        async with self._database.reading() as reading:
            found = await reading.operation(refund_id)
        if not found or (found.payment_id, found.kind) != (payment_id, OperationKind.REFUND):
            raise RefundNotFound(refund_id=str(refund_id))
        return found.refund_view(payment)

    async def count(self) -> int:
        async with self._database.reading() as reading:
            return await reading.count()

    async def _operations(
        self, payment_id: UUID, kind: OperationKind | None, query: PageQuery
    ) -> Sequence[Operation]:
        after = _place(self._cursors.decode(f"operations {payment_id} {kind}", query.cursor))
        async with self._database.reading() as reading:
            return await reading.operations(
                OperationFilter(query.limit + 1, payment_id, kind, after)
            )

    async def _visible(self, call: Call, payment_id: UUID) -> Payment:
        async with self._database.reading() as reading:
            payment = await reading.payment(payment_id)
        if payment is None or not call.sees(payment.user_id, PAYMENTS_MANAGE):
            raise PaymentNotFound(payment_id=str(payment_id))
        return payment

    # Moving money

    async def confirm(
        self, call: Call, payment_id: UUID, method: str, attempt: Attempt
    ) -> contract.Payment:
        return await self._charges.confirm(call, payment_id, method, attempt)

    async def refund(
        self, call: Call, payment_id: UUID, amount: Money | None, reason: str, attempt: Attempt
    ) -> contract.Refund:
        command = RefundPayment(
            payment_id=payment_id, refund_id=attempt.id, amount=amount, reason=reason
        )
        return await self._refunds.refund(call, command, attempt)

    async def webhook(
        self, call: Call, provider: str, headers: Mapping[str, str], body: bytes
    ) -> WebhookReceipt:
        return await self._webhooks.receive(call, provider, headers, body)

    # The ledger

    async def postings(self, call: Call, query: PostingQuery) -> Page[contract.Posting]:  # noqa: ARG002 - the route's policy is the check
        listing = f"postings {query.payment_id}"
        before = _place(self._cursors.decode(listing, query.cursor))
        async with self._database.reading() as reading:
            found = await reading.postings(query.payment_id, before, query.limit + 1)
        views = [posting.view() for posting in found]
        return self._cursors.page(listing, views, query.limit, _posted_at)

    async def accounts(self, call: Call) -> tuple[AccountBalance, ...]:  # noqa: ARG002 - as above
        async with self._database.reading() as reading:
            return tuple(await reading.balances())

    async def verify(self, call: Call) -> LedgerReport:  # noqa: ARG002 - as above
        async with self._database.reading() as reading:
            return await reading.report()


def _place(position: list[str] | None) -> tuple[datetime, UUID] | None:
    return (datetime.fromisoformat(position[0]), UUID(position[1])) if position else None


def _place_of(payment: contract.Payment) -> list[str]:
    return [payment.created_at.isoformat(), str(payment.payment_id)]


def _made_at(operation: contract.Operation) -> list[str]:
    return [operation.created_at.isoformat(), str(operation.operation_id)]


def _refunded_at(refund: contract.Refund) -> list[str]:
    return [refund.created_at.isoformat(), str(refund.refund_id)]


def _posted_at(posting: contract.Posting) -> list[str]:
    return [posting.created_at.isoformat(), str(posting.posting_id)]
