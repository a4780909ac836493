"""The use cases behind the HTTP API of payments."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from markethall.payments.contract.api import (
    OperationView,
    PaymentQuery,
    PaymentView,
)
from markethall.payments.contract.errors import PaymentNotFound, RefundNotFound
from markethall.payments.contract.internal import RefundPayment, RefundView
from markethall.payments.contract.statuses import OperationKind
from markethall.payments.domain.operation import Operation
from markethall.payments.domain.payment import Payment
from markethall.payments.ports import PaymentFilter, ReadStore, Store
from markethall.payments.service.change_authorization import ChangeAuthorization
from markethall.payments.service.charge_payment import ChargePayment
from markethall.payments.service.issue_refund import IssueRefund
from markethall.payments.service.saved_methods import SavedMethods
from markethall.payments.service.staff_records import MarkPaid
from markethall.payments.service.views import to_operation_view, to_payment_view, to_refund_view
from markethall.payments.service.webhooks import WebhookHandler
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.money import Money
from markethall.shared.kernel.pagination import TIME_KEYSET, Cursors, Page, PageQuery, TimeKeyset
from markethall.shared.kernel.scopes import PAYMENTS_MANAGE
from markethall.shared.persistence.database import Database


@dataclass(frozen=True)
class PaymentCommands:
    """The use cases that change a payment."""

    charge_payment: ChargePayment
    change_authorization: ChangeAuthorization
    issue_refund: IssueRefund
    mark_paid: MarkPaid
    saved_methods: SavedMethods


class PaymentApiService:
    """Implementation of `PaymentApi`."""

    def __init__(
        self,
        database: Database[ReadStore, Store],
        commands: PaymentCommands,
        webhooks: WebhookHandler,
        cursors: Cursors,
    ) -> None:
        self._database = database
        self._charge_payment = commands.charge_payment
        self._issue_refund = commands.issue_refund
        self._saved_methods = commands.saved_methods
        self._cursors = cursors
        # the use cases implement these methods of the contract
        self.list_payment_methods = commands.charge_payment.list_methods
        self.capture = commands.change_authorization.capture
        self.void = commands.change_authorization.void
        self.mark_paid = commands.mark_paid.mark_paid
        self.list_saved_methods = commands.saved_methods.list_methods
        self.delete_saved_method = commands.saved_methods.delete
        self.delete_saved_methods = commands.saved_methods.delete_all
        self.receive_webhook = webhooks.receive

    # Reading

    async def get_payment(self, ctx: CallContext, payment_id: UUID) -> PaymentView:
        return to_payment_view(await self._get_visible_payment(ctx, payment_id))

    async def list_payments(self, ctx: CallContext, query: PaymentQuery) -> Page[PaymentView]:
        owner_id = query.user_id if ctx.actor.has_scope(PAYMENTS_MANAGE) else ctx.user_id
        if query.user_id not in {None, owner_id}:
            return Page(items=(), next_cursor=None)
        listing = (
            f"payments {owner_id} {query.order_id} {query.status} {query.disputed} {query.sort}"
        )
        payment_filter = PaymentFilter(
            limit=query.limit + 1,
            descending=query.sort.startswith("-"),
            user_id=owner_id,
            order_id=query.order_id,
            status=query.status,
            disputed=query.disputed,
            after=self._cursors.decode(listing, query.cursor, TIME_KEYSET),
        )
        async with self._database.read_session() as store:
            payments = await store.list_payments(payment_filter)
        views = [to_payment_view(payment) for payment in payments]
        return self._cursors.build_page(
            listing, views, query.limit, lambda view: TimeKeyset(view.created_at, view.payment_id)
        )

    async def list_operations(
        self, ctx: CallContext, payment_id: UUID, query: PageQuery
    ) -> Page[OperationView]:
        await self._get_visible_payment(ctx, payment_id)
        operations = await self._list_operations(payment_id, None, query)
        is_staff = ctx.actor.has_scope(PAYMENTS_MANAGE)
        views = [to_operation_view(operation, with_fee=is_staff) for operation in operations]
        return self._cursors.build_page(
            f"operations {payment_id} None",
            views,
            query.limit,
            lambda view: TimeKeyset(view.created_at, view.operation_id),
        )

    async def list_refunds(
        self, ctx: CallContext, payment_id: UUID, query: PageQuery
    ) -> Page[RefundView]:
        payment = await self._get_visible_payment(ctx, payment_id)
        operations = await self._list_operations(payment_id, OperationKind.REFUND, query)
        views = [to_refund_view(operation, payment) for operation in operations]
        listing = f"operations {payment_id} {OperationKind.REFUND}"
        return self._cursors.build_page(
            listing, views, query.limit, lambda view: TimeKeyset(view.created_at, view.refund_id)
        )

    async def get_refund(self, ctx: CallContext, payment_id: UUID, refund_id: UUID) -> RefundView:
        payment = await self._get_visible_payment(ctx, payment_id)
        async with self._database.read_session() as store:
            operation = await store.get_operation(refund_id)
        if not operation or not operation.is_refund_of(payment_id):
            raise RefundNotFound(refund_id=str(refund_id))
        return to_refund_view(operation, payment)

    async def count(self) -> int:
        async with self._database.read_session() as store:
            return await store.count()

    async def _list_operations(
        self, payment_id: UUID, kind: OperationKind | None, query: PageQuery
    ) -> Sequence[Operation]:
        listing = f"operations {payment_id} {kind}"
        after = self._cursors.decode(listing, query.cursor, TIME_KEYSET)
        async with self._database.read_session() as store:
            return await store.list_operations(payment_id, kind, after, query.limit + 1)

    async def _get_visible_payment(self, ctx: CallContext, payment_id: UUID) -> Payment:
        async with self._database.read_session() as store:
            payment = await store.get_payment(payment_id)
        if payment is None or not ctx.can_view_order(
            payment.order_id, payment.user_id, PAYMENTS_MANAGE
        ):
            raise PaymentNotFound(payment_id=str(payment_id))
        return payment

    # Charges

    async def confirm(
        self,
        ctx: CallContext,
        payment_id: UUID,
        method: str,
        attempt: IdempotentCommand,
        *,
        save_method: bool = False,
    ) -> PaymentView:
        chosen = await self._saved_methods.choose(ctx, method, save_method, attempt.id)
        return await self._charge_payment.confirm(ctx, payment_id, chosen, attempt)

    # Refunds

    async def refund(
        self,
        ctx: CallContext,
        payment_id: UUID,
        amount: Money | None,
        reason: str,
        attempt: IdempotentCommand,
    ) -> RefundView:
        command = RefundPayment(
            payment_id=payment_id, refund_id=attempt.id, amount=amount, reason=reason
        )
        return await self._issue_refund.refund(ctx, command, attempt)
