"""The job that refunds money of ended payments reaches all payments, even if some refunds fail."""

import pytest
from dependency_injector import providers

from markethall.payments.contract.api import PaymentView
from markethall.payments.domain.operation import Failed, Outcome, Succeeded
from markethall.payments.gateway.manual import ManualGateway, ManualMethod
from markethall.payments.ports import Capability, OperationRequest
from markethall.shared.persistence.postgres import Postgres
from tests.payments.conftest import (
    MANUAL_METHODS,
    ORDERS_CONTEXT,
    PaymentsApp,
    build_payments_app,
)
from tests.payments.test_mark_paid import amounts, awaited

# the job takes at most 100 payments per run
MANY = 100
REJECTED, ACCEPTED = 300, 400


class RefundingGateway(ManualGateway):
    """A gateway for money from outside of the shop. It rejects refunds of one amount."""

    capabilities = frozenset({Capability.MARK_PAID, Capability.REFUND})

    async def refund(self, request: OperationRequest) -> Outcome:
        if request.amount.amount == REJECTED:
            return Failed("account_closed")
        return Succeeded(f"refund {request.operation_id}")


@pytest.fixture
def payments_app(storage: tuple[str, Postgres | None]) -> PaymentsApp:
    payments_app = build_payments_app(*storage)
    gateway = RefundingGateway([ManualMethod.model_validate(one) for one in MANUAL_METHODS])
    payments_app.container.gateways.override(providers.Object([payments_app.gateway, gateway]))
    return payments_app


async def end_with(payments_app: PaymentsApp, payment: PaymentView, received: int) -> None:
    """Receive a part of the amount, then cancel the payment."""
    await payments_app.mark_paid(payment, received)
    await payments_app.payments.cancel(ORDERS_CONTEXT, payment.payment_id)


async def test_many_rejected_refunds_do_not_delay_others(payments_app: PaymentsApp) -> None:
    first = await awaited(payments_app)
    for _ in range(MANY):
        await end_with(payments_app, await awaited(payments_app), REJECTED)
    last = await awaited(payments_app)
    await end_with(payments_app, last, ACCEPTED)
    jobs = payments_app.container.payment_jobs()

    for _ in range(2):
        await jobs.refund_ended_payments()
    after_two_runs = await payments_app.current(last)
    await end_with(payments_app, first, ACCEPTED)
    await jobs.refund_ended_payments()

    assert amounts(after_two_runs) == (ACCEPTED, ACCEPTED, ACCEPTED)
    assert amounts(await payments_app.current(first)) == (ACCEPTED, ACCEPTED, ACCEPTED)
