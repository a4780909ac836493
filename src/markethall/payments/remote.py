"""The contract `Payments` over HTTP: server routes, then the client."""

from typing import Annotated, Final, Protocol
from uuid import UUID

from fastapi import APIRouter, Depends, Response

from markethall.payments.contract import (
    ActivatePayments,
    CapturePayment,
    InvalidPaymentTransition,
    ListPaymentStates,
    OpenPayment,
    OperationIdTaken,
    OrderHasPayment,
    PaymentInProgress,
    PaymentList,
    PaymentNotFound,
    Payments,
    PaymentStates,
    PaymentSummary,
    RefundExceedsCaptured,
    RefundPayment,
    RefundView,
    UnknownPaymentMethod,
    VoidPayment,
)
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.problem_details import problems
from markethall.shared.http.responses import json_response
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import ValidationFailed
from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.money import CurrencyMismatch
from markethall.shared.rpc.client import RpcClient
from markethall.shared.rpc.client_interceptor import CallGuard
from markethall.shared.rpc.server import FORBID_UNKNOWN_FIELDS, require_service_token

router = APIRouter(prefix="/internal/payments", tags=["internal"])


class ProvidesPayments(Protocol):
    def payments(self) -> Payments: ...


_from_payments: Final[FromContext[ProvidesPayments]] = FromContext("payments")
PaymentsDep = Annotated[Payments, Depends(_from_payments(lambda container: container.payments()))]


class PaymentRef(Dto):
    payment_id: UUID


@router.post(
    "/open",
    response_model=PaymentSummary,
    responses=problems(OrderHasPayment, UnknownPaymentMethod),
)
async def open_payment(
    ctx: Annotated[CallContext, require_service_token("payments.open")],
    command: Annotated[OpenPayment, FORBID_UNKNOWN_FIELDS],
    payments: PaymentsDep,
) -> Response:
    return json_response(await payments.open(ctx, command))


@router.post("/activate", response_model=PaymentList)
async def activate(
    ctx: Annotated[CallContext, require_service_token("payments.activate")],
    command: Annotated[ActivatePayments, FORBID_UNKNOWN_FIELDS],
    payments: PaymentsDep,
) -> Response:
    return json_response(await payments.activate(ctx, command))


@router.post(
    "/cancel",
    status_code=204,
    response_class=Response,
    responses=problems(InvalidPaymentTransition, PaymentInProgress),
)
async def cancel(
    ctx: Annotated[CallContext, require_service_token("payments.cancel")],
    payment: Annotated[PaymentRef, FORBID_UNKNOWN_FIELDS],
    payments: PaymentsDep,
) -> None:
    await payments.cancel(ctx, payment.payment_id)


@router.post(
    "/capture_due",
    response_model=PaymentSummary,
    responses=problems(
        PaymentNotFound,
        InvalidPaymentTransition,
        PaymentInProgress,
        OperationIdTaken,
        CurrencyMismatch,
    ),
)
async def capture_due(
    ctx: Annotated[CallContext, require_service_token("payments.capture_due")],
    command: Annotated[CapturePayment, FORBID_UNKNOWN_FIELDS],
    payments: PaymentsDep,
) -> Response:
    return json_response(await payments.capture_due(ctx, command))


@router.post(
    "/void",
    response_model=PaymentSummary,
    responses=problems(
        PaymentNotFound, InvalidPaymentTransition, PaymentInProgress, OperationIdTaken
    ),
)
async def void(
    ctx: Annotated[CallContext, require_service_token("payments.void")],
    command: Annotated[VoidPayment, FORBID_UNKNOWN_FIELDS],
    payments: PaymentsDep,
) -> Response:
    return json_response(await payments.void(ctx, command))


@router.post(
    "/refund",
    response_model=RefundView,
    responses=problems(
        PaymentNotFound,
        InvalidPaymentTransition,
        RefundExceedsCaptured,
        OperationIdTaken,
        ValidationFailed,
        CurrencyMismatch,
    ),
)
async def refund(
    ctx: Annotated[CallContext, require_service_token("payments.refund")],
    command: Annotated[RefundPayment, FORBID_UNKNOWN_FIELDS],
    payments: PaymentsDep,
) -> Response:
    return json_response(await payments.refund(ctx, command))


@router.post("/list_payment_states", response_model=PaymentStates)
async def list_payment_states(
    ctx: Annotated[CallContext, require_service_token("payments.list_payment_states")],
    page: Annotated[ListPaymentStates, FORBID_UNKNOWN_FIELDS],
    payments: PaymentsDep,
) -> Response:
    return json_response(await payments.list_payment_states(ctx, page))


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
        return await self._guard.invoke(ctx, "open", lambda ctx: self._payments.open(ctx, command))

    async def activate(self, ctx: CallContext, command: ActivatePayments) -> PaymentList:
        return await self._guard.invoke(
            ctx, "activate", lambda ctx: self._payments.activate(ctx, command)
        )

    async def cancel(self, ctx: CallContext, payment_id: UUID) -> None:
        await self._guard.invoke(ctx, "cancel", lambda ctx: self._payments.cancel(ctx, payment_id))

    async def capture_due(self, ctx: CallContext, command: CapturePayment) -> PaymentSummary:
        return await self._guard.invoke(
            ctx, "capture_due", lambda ctx: self._payments.capture_due(ctx, command)
        )

    async def void(self, ctx: CallContext, command: VoidPayment) -> PaymentSummary:
        return await self._guard.invoke(ctx, "void", lambda ctx: self._payments.void(ctx, command))

    async def refund(self, ctx: CallContext, command: RefundPayment) -> RefundView:
        return await self._guard.invoke(
            ctx, "refund", lambda ctx: self._payments.refund(ctx, command)
        )

    async def list_payment_states(self, ctx: CallContext, page: ListPaymentStates) -> PaymentStates:
        return await self._guard.invoke(
            ctx, "list_payment_states", lambda ctx: self._payments.list_payment_states(ctx, page)
        )
