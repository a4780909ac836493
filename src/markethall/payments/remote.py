"""The promise of payments over HTTP: the serving half, then the calling half."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Response

from markethall.payments.contract import (
    InvalidPaymentTransition,
    OpenPayment,
    OperationIdTaken,
    OrderHasPayment,
    Payment,
    PaymentInProgress,
    PaymentNotFound,
    Payments,
    Refund,
    RefundExceedsCaptured,
    RefundPayment,
)
from markethall.shared.call import Call
from markethall.shared.errors import Invalid
from markethall.shared.http import from_container, problems, ready
from markethall.shared.model import Dto
from markethall.shared.money import CurrencyMismatch
from markethall.shared.serving import STRICT, service
from markethall.shared.wire import Wire

router = APIRouter(prefix="/internal/payments", tags=["internal"])

PaymentsDep = Annotated[Payments, Depends(from_container("payments"))]


class Which(Dto):
    payment_id: UUID


@router.post("/open", response_model=Payment, responses=problems(OrderHasPayment))
async def open_payment(
    call: Annotated[Call, service("payments.open")],
    command: Annotated[OpenPayment, STRICT],
    payments: PaymentsDep,
) -> Response:
    return ready(await payments.open(call, command))


@router.post(
    "/cancel",
    status_code=204,
    response_class=Response,
    responses=problems(InvalidPaymentTransition, PaymentInProgress),
)
async def cancel(
    call: Annotated[Call, service("payments.cancel")],
    which: Annotated[Which, STRICT],
    payments: PaymentsDep,
) -> None:
    await payments.cancel(call, which.payment_id)


@router.post(
    "/refund",
    response_model=Refund,
    responses=problems(
        PaymentNotFound,
        InvalidPaymentTransition,
        RefundExceedsCaptured,
        OperationIdTaken,
        Invalid,
        CurrencyMismatch,
    ),
)
async def refund(
    call: Annotated[Call, service("payments.refund")],
    command: Annotated[RefundPayment, STRICT],
    payments: PaymentsDep,
) -> Response:
    return ready(await payments.refund(call, command))


class RemotePayments:
    """Payments, in another deployment."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def open(self, call: Call, command: OpenPayment) -> Payment:
        return await self._wire.ask(call, "open", command, Payment)

    async def cancel(self, call: Call, payment_id: UUID) -> None:
        await self._wire.tell(call, "cancel", Which(payment_id=payment_id))

    async def refund(self, call: Call, command: RefundPayment) -> Refund:
        return await self._wire.ask(call, "refund", command, Refund)
