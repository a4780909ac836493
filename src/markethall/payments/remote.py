"""The contract `Payments` over HTTP: server routes, client, and wrapper with the call guard."""

from uuid import UUID

from markethall.payments.contract.errors import (
    InvalidPaymentTransition,
    OperationIdTaken,
    OrderHasPayment,
    PaymentInProgress,
    PaymentNotFound,
    RefundExceedsCaptured,
    UnknownPaymentMethod,
)
from markethall.payments.contract.internal import (
    ActivatePayments,
    CapturePayment,
    ListPaymentStates,
    OpenPayment,
    PaymentList,
    Payments,
    PaymentStates,
    PaymentSummary,
    RefundPayment,
    RefundView,
    VoidPayment,
)
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import ValidationFailed
from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.money import CurrencyMismatch
from markethall.shared.rpc.client import RpcClient
from markethall.shared.rpc.client_interceptor import CallGuard
from markethall.shared.rpc.server import InternalRoutes


class PaymentRef(Dto):
    payment_id: UUID


routes = InternalRoutes("payments", lambda container: container.payments())
routes.add(Payments.open, OrderHasPayment, UnknownPaymentMethod)
routes.add(Payments.activate)
routes.add(Payments.cancel, InvalidPaymentTransition, PaymentInProgress, reference=PaymentRef)
routes.add(
    Payments.capture_due,
    PaymentNotFound,
    InvalidPaymentTransition,
    PaymentInProgress,
    OperationIdTaken,
    CurrencyMismatch,
)
routes.add(
    Payments.void, PaymentNotFound, InvalidPaymentTransition, PaymentInProgress, OperationIdTaken
)
routes.add(
    Payments.refund,
    PaymentNotFound,
    InvalidPaymentTransition,
    RefundExceedsCaptured,
    OperationIdTaken,
    ValidationFailed,
    CurrencyMismatch,
)
routes.add(Payments.list_payment_states)


class RemotePayments:
    """Client of payments in another deployment."""

    def __init__(self, rpc_client: RpcClient) -> None:
        self._rpc_client = rpc_client

    async def open(self, ctx: CallContext, command: OpenPayment) -> PaymentSummary:
        return await self._rpc_client.call(ctx, "open", command, PaymentSummary)

    async def activate(self, ctx: CallContext, command: ActivatePayments) -> PaymentList:
        return await self._rpc_client.call(ctx, "activate", command, PaymentList)

    async def cancel(self, ctx: CallContext, payment_id: UUID) -> None:
        await self._rpc_client.call_without_result(ctx, "cancel", PaymentRef(payment_id=payment_id))

    async def capture_due(self, ctx: CallContext, command: CapturePayment) -> PaymentSummary:
        return await self._rpc_client.call(ctx, "capture_due", command, PaymentSummary)

    async def void(self, ctx: CallContext, command: VoidPayment) -> PaymentSummary:
        return await self._rpc_client.call(ctx, "void", command, PaymentSummary)

    async def refund(self, ctx: CallContext, command: RefundPayment) -> RefundView:
        return await self._rpc_client.call(ctx, "refund", command, RefundView)

    async def list_payment_states(self, ctx: CallContext, page: ListPaymentStates) -> PaymentStates:
        return await self._rpc_client.call(ctx, "list_payment_states", page, PaymentStates)


class GuardedPayments:
    """`Payments` behind a call guard, which makes the same checks for local and remote calls."""

    def __init__(self, payments: Payments, guard: CallGuard) -> None:
        self._payments = payments
        self._guard = guard

    async def open(self, ctx: CallContext, command: OpenPayment) -> PaymentSummary:
        return await self._guard.invoke(ctx, "open", self._payments.open, command)

    async def activate(self, ctx: CallContext, command: ActivatePayments) -> PaymentList:
        return await self._guard.invoke(ctx, "activate", self._payments.activate, command)

    async def cancel(self, ctx: CallContext, payment_id: UUID) -> None:
        await self._guard.invoke(ctx, "cancel", self._payments.cancel, payment_id)

    async def capture_due(self, ctx: CallContext, command: CapturePayment) -> PaymentSummary:
        return await self._guard.invoke(ctx, "capture_due", self._payments.capture_due, command)

    async def void(self, ctx: CallContext, command: VoidPayment) -> PaymentSummary:
        return await self._guard.invoke(ctx, "void", self._payments.void, command)

    async def refund(self, ctx: CallContext, command: RefundPayment) -> RefundView:
        return await self._guard.invoke(ctx, "refund", self._payments.refund, command)

    async def list_payment_states(self, ctx: CallContext, page: ListPaymentStates) -> PaymentStates:
        return await self._guard.invoke(
            ctx, "list_payment_states", self._payments.list_payment_states, page
        )
