"""The conformance suite passes with two correct gateways, and finds each planted fault."""

import inspect
from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import pytest

from markethall.payments.gateway.sandbox import SandboxGateway
from markethall.payments.gateway.sandbox_webhooks import SandboxWebhooks
from markethall.payments.ports import (
    GatewayTools,
    OperationRequest,
    Outcome,
    PaymentGatewayTimeout,
)
from markethall.testing import GatewayTestbed, PaymentGatewayConformance, ProviderTotals
from tests.payments.conftest import SECRET, FakeClock, PaymentsApp, skip_sleep
from tests.payments.toy_faults import FAULTS
from tests.payments.toy_provider import ToyTestbed

TESTS = sorted(
    name for name, _ in inspect.getmembers(PaymentGatewayConformance) if name.startswith("test_")
)


class LossySandbox(SandboxGateway):
    """The sandbox gateway. If `loses_answer` is set, the next call takes effect but times out."""

    loses_answer = False

    async def charge(self, request: OperationRequest) -> Outcome:
        return self._answer(await super().charge(request))

    async def capture(self, request: OperationRequest) -> Outcome:
        return self._answer(await super().capture(request))

    async def refund(self, request: OperationRequest) -> Outcome:
        return self._answer(await super().refund(request))

    def _answer(self, outcome: Outcome) -> Outcome:
        is_lost, self.loses_answer = self.loses_answer, False
        if is_lost:
            raise PaymentGatewayTimeout
        return outcome


async def ignore_webhook(provider: str, headers: Mapping[str, str], body: bytes) -> None:
    return


class SandboxTestbed(GatewayTestbed):
    method = "sandbox_ok"
    declined_method = "sandbox_declined"

    def __init__(self, payments_app: PaymentsApp) -> None:
        self.ledger = payments_app.sandbox_ledger
        self.webhooks = SandboxWebhooks(SECRET)
        tools = GatewayTools(
            clock=FakeClock(),
            secret_key=SECRET,
            sandbox_ledger=self.ledger,
            deliver_webhook=ignore_webhook,
            sleep=skip_sleep,
        )
        self.gateway: LossySandbox = LossySandbox(tools, SECRET)

    async def totals(self, charge_id: UUID) -> ProviderTotals:
        charge = await self.ledger.get_charge(charge_id)
        if charge is None:
            return ProviderTotals()
        return ProviderTotals(charge.captured, charge.refunded)

    def lose_next_answer(self) -> None:
        self.gateway.loses_answer = True

    def webhook_body(self, request: OperationRequest, outcome: Outcome) -> bytes:
        _, body = self.webhooks.build_signed_event(
            request.operation_id, outcome, self.NOW, request.amount
        )
        return body

    def sign_webhook(self, body: bytes, sent_at: datetime) -> Mapping[str, str]:
        return {"sandbox-signature": self.webhooks.compute_signature(body, sent_at)}


class TestSandboxConformance(PaymentGatewayConformance):
    @pytest.fixture
    def testbed(self, payments_app: PaymentsApp) -> GatewayTestbed:
        return SandboxTestbed(payments_app)


class TestToyConformance(PaymentGatewayConformance):
    @pytest.fixture
    def testbed(self) -> GatewayTestbed:
        return ToyTestbed()


@pytest.mark.parametrize("fault", FAULTS)
async def test_planted_fault_is_found(fault: str) -> None:
    with pytest.raises(AssertionError):
        await run_conformance_test(FAULTS[fault], ToyTestbed(fault))


@pytest.mark.parametrize("name", TESTS)
def test_every_conformance_test_finds_a_fault(name: str) -> None:
    assert name in FAULTS.values() or name == "test_charge_takes_the_amount"


async def run_conformance_test(name: str, testbed: GatewayTestbed) -> None:
    await getattr(PaymentGatewayConformance(), name)(testbed)
