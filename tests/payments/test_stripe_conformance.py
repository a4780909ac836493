"""The conformance suite on Stripe, and more tests of its gateway.

A blocked operation is one that `cancel_unknown` has ended: a late request can have no effect.
"""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from markethall.payments.contract.statuses import OperationKind
from markethall.payments.ports import (
    PROVIDER_TIMEOUT,
    Failed,
    OperationRequest,
    Outcome,
    OutcomePending,
    PaymentGateway,
    PaymentGatewayTimeout,
    Succeeded,
)
from markethall.testing import GatewayTestbed, PaymentGatewayConformance, ProviderTotals
from tests.payments.conftest import FakeClock
from tests.payments.stripe_app import DECLINED, NEEDS_ACTION, OK, build_container, signature
from tests.payments.stripe_server import Fault, StripeServer


class StripeTestbed(GatewayTestbed):
    method = OK
    declined_method = DECLINED
    action_method = NEEDS_ACTION

    def __init__(self, gateway: PaymentGateway, server: StripeServer, clock: FakeClock) -> None:
        self.gateway, self.server, self.clock = gateway, server, clock

    async def totals(self, charge_id: UUID) -> ProviderTotals:
        intents = [
            one
            for one in self.server.intents.values()
            if one["metadata"]["markethall_operation_id"] == str(charge_id)
        ]
        ids = {one["id"] for one in intents}
        refunds = [one for one in self.server.refunds.values() if one["payment_intent"] in ids]
        return ProviderTotals(
            sum(one["amount_received"] for one in intents), sum(one["amount"] for one in refunds)
        )

    def lose_next_answer(self) -> None:
        self.server.fail("confirm", Fault.LOST_AFTER)
        self.server.fail("refund", Fault.LOST_AFTER)
        self.server.fail("capture", Fault.LOST_AFTER)

    def finish_action(self, charge_id: UUID) -> None:
        intent = self.server.intent_of(charge_id)
        if intent["status"] == "requires_action":
            self.server.finish_action(intent)

    def open_dispute(self, charge_id: UUID) -> str:
        return str(self.server.open_dispute(self.server.intent_of(charge_id))["id"])

    def webhook_body(self, request: OperationRequest, outcome: Outcome) -> bytes:
        intent = self.server.intent_of(request.operation_id)
        event = self.server.build_event("payment_intent.succeeded", intent)
        return json.dumps(event | {"id": f"evt_{intent['id']}"}).encode()

    def sign_webhook(self, body: bytes, sent_at: datetime) -> Mapping[str, str]:
        return {"stripe-signature": signature(body, int(sent_at.timestamp()))}

    async def authorized(self) -> OperationRequest:
        request = self.charge_request(kind=OperationKind.AUTHORIZE)
        outcome = await self.gateway.authorize(request)
        assert isinstance(outcome, Succeeded)
        return replace(request, reference=outcome.reference)


@pytest.fixture
async def testbed() -> AsyncIterator[StripeTestbed]:
    clock = FakeClock()
    clock.now = GatewayTestbed.NOW
    async with StripeServer() as server:
        (gateway,) = build_container(clock, "memory", None, server).gateways()
        yield StripeTestbed(gateway, server, clock)
        await gateway.close()


class TestStripeConformance(PaymentGatewayConformance):
    """Runs the tests of the suite with the fixture `testbed`."""


async def test_lookup_of_authorization_survives_its_end(testbed: StripeTestbed) -> None:
    authorization = await testbed.authorized()
    await testbed.gateway.void(testbed.follow_up(OperationKind.VOID, authorization))

    found = await testbed.gateway.lookup(authorization)

    assert isinstance(found, Succeeded)
    assert found.reference == authorization.reference
    assert found.expires_at == authorization.created_at + timedelta(days=7)


async def test_capture_of_expired_authorization_fails(testbed: StripeTestbed) -> None:
    authorization = await testbed.authorized()
    intent = testbed.server.intent_of(authorization.operation_id)
    intent |= {"status": "canceled", "cancellation_reason": "automatic"}

    outcome = await testbed.gateway.capture(testbed.follow_up(OperationKind.CAPTURE, authorization))

    assert outcome == Failed("payment_intent_unexpected_state")


@pytest.mark.parametrize("kind", [OperationKind.CAPTURE, OperationKind.REFUND])
async def test_lost_answer_of_a_change_is_found(
    testbed: StripeTestbed, kind: OperationKind
) -> None:
    charge = await paid(testbed, kind)
    change = testbed.follow_up(kind, charge, 600)
    missing = await testbed.gateway.lookup(change)
    testbed.server.fail(kind.value, Fault.LOST_AFTER)

    with pytest.raises(PaymentGatewayTimeout):
        await submit(testbed, change)

    assert missing is None
    assert isinstance(await testbed.gateway.lookup(change), Succeeded)
    assert await testbed.gateway.cancel_unknown(change) == await testbed.gateway.lookup(change)


@pytest.mark.parametrize("kind", [OperationKind.CAPTURE, OperationKind.REFUND, OperationKind.VOID])
async def test_blocked_change_never_takes_effect(
    testbed: StripeTestbed, kind: OperationKind
) -> None:
    charge = await paid(testbed, kind)
    change = testbed.follow_up(kind, charge)
    before = await testbed.totals(charge.operation_id)

    blocked = [await testbed.gateway.cancel_unknown(change) for _ in range(2)]
    late = await submit(testbed, change)

    assert {*blocked, late} == {Failed(PROVIDER_TIMEOUT)}
    assert await testbed.totals(charge.operation_id) == before
    assert isinstance(await submit(testbed, testbed.follow_up(kind, charge)), Succeeded)


async def test_refund_is_found_behind_many_others(testbed: StripeTestbed) -> None:
    charge = await paid(testbed, OperationKind.REFUND)
    refunds = [testbed.follow_up(OperationKind.REFUND, charge, 100) for _ in range(5)]
    outcomes = [await testbed.gateway.refund(refund) for refund in refunds]

    assert [await testbed.gateway.lookup(refund) for refund in refunds] == outcomes


async def test_nothing_is_sent_twice_after_stripe_forgot_the_keys(testbed: StripeTestbed) -> None:
    charge = testbed.charge_request()
    outcome = await testbed.gateway.charge(charge)
    refund = testbed.follow_up(
        OperationKind.REFUND, replace(charge, reference=outcome.reference), 100
    )
    refunded = await testbed.gateway.refund(refund)
    never_sent = testbed.charge_request()

    testbed.server.forget_keys()
    testbed.clock.advance(timedelta(hours=25).total_seconds())

    assert await testbed.gateway.lookup(charge) == outcome
    assert await testbed.gateway.charge(charge) == outcome
    assert await testbed.gateway.refund(refund) == refunded
    assert await testbed.gateway.lookup(never_sent) is None
    assert await testbed.gateway.charge(never_sent) == Failed(PROVIDER_TIMEOUT)
    assert await testbed.totals(charge.operation_id) == ProviderTotals(1000, 100)


async def test_lookup_survives_a_change_of_the_settings(testbed: StripeTestbed) -> None:
    """The gateway finds the charge by a search, because Stripe would reject a repeated request.

    The new settings change its parameters, which must be the same for a known idempotency key.
    """
    charge = testbed.charge_request()
    outcome = await testbed.gateway.charge(charge)
    container = build_container(
        testbed.clock, "memory", None, testbed.server, stripe_payment_method_types="card,link"
    )
    (changed,) = container.gateways()

    testbed.server.search_is_behind = True
    with pytest.raises(PaymentGatewayTimeout):
        await changed.lookup(charge)
    testbed.server.search_is_behind = False

    assert await changed.lookup(charge) == outcome
    await changed.close()


async def test_payment_in_processing_has_no_outcome_yet(testbed: StripeTestbed) -> None:
    charge = testbed.charge_request(method="pm_processing")

    with pytest.raises(OutcomePending):
        await testbed.gateway.charge(charge)
    with pytest.raises(OutcomePending):
        await testbed.gateway.cancel_unknown(charge)


GARBAGE = [
    b"", b"null", b"1", b"[]", b'"text"', b"{", b"\xff", b"[" * 100_000, b'{"error": 1}',
    b'{"error": null}', b'{"error": "text"}', b'{"error": []}', b'{"error": {}}',
    b'{"error": {"code": 1}}', b'{"error": {"code": "a\\u0000b"}}', b'{"error": {"type": []}}',
    b'{"error": {"payment_intent": 1}}', b'{"error": {"payment_intent": {"id": "pi_1"}}}',
    b'{"error": {"type": "card_error", "payment_intent": {"object": "payment_intent"}}}',
    b'{"object": "payment_intent"}', b'{"object": "payment_intent", "id": "../../pi_1"}',
]  # fmt: skip


@pytest.mark.parametrize("name", ["create", "confirm"])
@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 402, 403, 404, 409, 429, 500, 503])
async def test_garbage_is_no_success(testbed: StripeTestbed, name: str, status: int) -> None:
    for body in GARBAGE:
        charge = testbed.charge_request()
        testbed.server.answer(name, status, b"" if status == 204 else body)

        try:
            outcome = await testbed.gateway.charge(charge)
        except PaymentGatewayTimeout:
            outcome = await testbed.gateway.cancel_unknown(charge)

        assert isinstance(outcome, Failed), body
        assert await testbed.totals(charge.operation_id) == ProviderTotals()


async def paid(testbed: StripeTestbed, kind: OperationKind) -> OperationRequest:
    """Return a new charge if `kind` is a refund, otherwise a new authorization."""
    if kind is not OperationKind.REFUND:
        return await testbed.authorized()
    charge = testbed.charge_request()
    outcome = await testbed.gateway.charge(charge)
    return replace(charge, reference=outcome.reference)


async def submit(testbed: StripeTestbed, request: OperationRequest) -> Outcome:
    commands = {
        OperationKind.CAPTURE: testbed.gateway.capture,
        OperationKind.REFUND: testbed.gateway.refund,
        OperationKind.VOID: testbed.gateway.void,
    }
    return await commands[request.kind](request)
