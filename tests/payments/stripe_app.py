"""Payments with Stripe as the only provider, against the fake server of stripe_server.py."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from dependency_injector import providers

from markethall.payments.container import PaymentsContainer
from markethall.payments.contract import PaymentStatus
from markethall.payments.contract.api import PaymentView, WebhookReceipt
from markethall.payments.contract.ledger import PostingFilters
from markethall.payments.contract.statuses import PostingKind
from markethall.payments.gateway.webhook_signatures import sign
from markethall.payments.settings import PaymentsSettings
from markethall.shared.composition.settings import read_one
from markethall.shared.persistence.postgres import Postgres
from markethall.testing import context_tools
from tests.payments.conftest import (
    ANONYMOUS,
    SECRET,
    STAFF,
    FakeClock,
    InterruptibleGateway,
    PaymentsApp,
)
from tests.payments.stripe_server import StripeServer

OK: Final = "pm_card_visa"
DECLINED: Final = "pm_card_chargeDeclined"
NEEDS_ACTION: Final = "pm_card_authenticationRequired"
WEBHOOK_SECRET: Final = "whsec_0123456789abcdef"
RETURN_URL: Final = "https://shop.example/paid?from=stripe"


@dataclass
class StripeApp(PaymentsApp):
    stripe: StripeServer

    async def paid(self, amount: int = 1999) -> PaymentView:
        return await self.confirm(await self.open(amount), OK)

    async def deliver(self, event: dict[str, Any], secret: str = WEBHOOK_SECRET) -> WebhookReceipt:
        """Deliver a signed webhook."""
        body = json.dumps(event).encode()
        headers = {"stripe-signature": signature(body, int(self.clock().timestamp()), secret)}
        return await self.payment_api.receive_webhook(ANONYMOUS, "stripe", headers, body)

    async def settle(self, payment: PaymentView) -> PaymentView:
        """Reconcile until the payment is not in progress, at most five times."""
        for _ in range(5):
            await self.reconcile()
            payment = await self.current(payment)
            if payment.status not in {PaymentStatus.UNKNOWN, PaymentStatus.PROCESSING}:
                break
        return payment

    async def posting_count(self) -> int:
        """Return the number of postings except those of fees.

        If a webhook settles a charge before its answer arrives, no fee is posted. So the number of
        fees depends on the order of the two.
        """
        fees = self.ledger.export_postings(STAFF, PostingFilters(kind=PostingKind.FEE))
        lines = sum([chunk.count(b"\r\n") async for chunk in fees])
        # the CSV has one header line, and two lines for each posting of a fee
        return await super().posting_count() - (lines - 1) // 2

    async def assert_agrees(self, payment: PaymentView) -> None:
        """Check the ledger, and that the payment has the same amounts as at Stripe."""
        charges, captured, refunded = self.stripe.totals(payment.payment_id)
        now = await self.current(payment)
        assert charges <= 1
        assert (now.captured.amount, now.refunded.amount) == (captured, refunded)
        report = await self.ledger.verify(STAFF)
        assert report.intact, report.findings


def signature(body: bytes, timestamp: int, secret: str = WEBHOOK_SECRET) -> str:
    return f"t={timestamp},v1={sign(secret.encode(), timestamp, body)}"


@asynccontextmanager
async def stripe_app(
    storage: str, postgres: Postgres | None, server: StripeServer, **settings: Any
) -> AsyncIterator[StripeApp]:
    clock = FakeClock()
    container = build_container(clock, storage, postgres, server, **settings)
    (gateway,) = container.gateways()
    interruptible = InterruptibleGateway(gateway)
    container.gateways.override(providers.Object([interruptible]))
    try:
        yield StripeApp(container, clock, interruptible, server)
    finally:
        await gateway.close()


def build_container(
    clock: FakeClock, storage: str, postgres: Postgres | None, server: StripeServer, **settings: Any
) -> PaymentsContainer:
    overrides = {
        "storage": storage,
        "payment_providers": "stripe",
        "payment_provider_failure_threshold": 1_000_000,
        "stripe_secret_key": "sk_test_0123456789",
        "stripe_webhook_secrets": WEBHOOK_SECRET,
        "stripe_return_url": RETURN_URL,
        "stripe_api_base": server.url,
    } | settings
    payments_settings = read_one(PaymentsSettings, overrides)
    payments_settings.read_extensions(overrides)
    tools = context_tools(clock=clock, postgres=postgres, secret_key=SECRET)
    return PaymentsContainer(settings=payments_settings, tools=tools)
