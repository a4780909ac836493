"""The conformance suite of payment gateways.

The author of a gateway inherits from `PaymentGatewayConformance` and writes a fixture
`testbed`. Every test passes for a correct gateway. A test of a capability that the gateway does not
declare returns at once; `test_capabilities_are_honest` checks the declared capabilities.
"""

import asyncio
from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus
from typing import Final

from markethall.payments.ports import Capability, OperationKind, Succeeded
from markethall.shared.kernel.errors import DomainError
from markethall.testing.gateway_capabilities import CapabilityConformance
from markethall.testing.gateway_testbed import (
    AMOUNT,
    GatewayTestbed,
    charge_once,
    expect,
    expect_failure,
    expect_forged,
    expect_success,
    expect_timeout,
    expect_totals,
    is_blocked,
    is_supported,
    receive,
)

_CONCURRENCY: Final = 8
# capability -> the capability that it requires
_REQUIRED_CAPABILITIES: Final = {
    Capability.PARTIAL_CAPTURE: Capability.AUTHORIZE,
    Capability.MULTIPLE_CAPTURES: Capability.PARTIAL_CAPTURE,
    Capability.PARTIAL_REFUND: Capability.REFUND,
}
_GARBAGE: Final = (b"", b"{", b"[]", b"null", b"\xff\xfe", b'"text"', b"[" * 5000, b'{"a": 1}')
_LONG_AGO: Final = timedelta(hours=1)


class PaymentGatewayConformance(CapabilityConformance):
    """The tests. Name the subclass `Test…`, so that pytest collects it."""

    # Charges

    async def test_charge_takes_the_amount(self, testbed: GatewayTestbed) -> None:
        charge, _ = await charge_once(testbed)

        await expect_totals(testbed, charge, captured=AMOUNT)

    async def test_repeated_charge_has_no_effect(self, testbed: GatewayTestbed) -> None:
        charge, first = await charge_once(testbed)

        for _ in range(2):
            again = await testbed.gateway.charge(charge)
            expect(again == first, f"a repeated charge returned {again}, the first {first}")
        await expect_totals(testbed, charge, captured=AMOUNT)

    async def test_concurrent_repeated_charges_charge_once(self, testbed: GatewayTestbed) -> None:
        charge = testbed.charge_request()

        await asyncio.gather(
            *(testbed.gateway.charge(charge) for _ in range(_CONCURRENCY)), return_exceptions=True
        )

        expect_success(await testbed.gateway.lookup(charge), "lookup of a charge")
        await expect_totals(testbed, charge, captured=AMOUNT)

    async def test_two_charges_are_two(self, testbed: GatewayTestbed) -> None:
        first, first_outcome = await charge_once(testbed)
        second, second_outcome = await charge_once(testbed)

        is_own = first_outcome.reference != second_outcome.reference
        expect(is_own and bool(first_outcome.reference), "a charge has no reference of its own")
        await expect_totals(testbed, first, captured=AMOUNT)
        await expect_totals(testbed, second, captured=AMOUNT)

    async def test_declined_charge_takes_nothing(self, testbed: GatewayTestbed) -> None:
        charge = testbed.charge_request(method=testbed.declined_method)

        outcome = await testbed.gateway.charge(charge)

        expect_failure(outcome, "a declined charge")
        expect(await testbed.gateway.lookup(charge) == outcome, "lookup differs from the decline")
        await expect_totals(testbed, charge)

    async def test_methods_are_known(self, testbed: GatewayTestbed) -> None:
        for method in (testbed.method, testbed.declined_method):
            expect(testbed.gateway.accepts(method), f"does not accept its method {method}")
        for method in ("", "no such method"):
            expect(not testbed.gateway.accepts(method), f"accepts the method {method!r}")

    # Lookups and lost answers

    async def test_lookup_finds_a_charge(self, testbed: GatewayTestbed) -> None:
        charge, outcome = await charge_once(testbed)

        # after a lost answer the reference is not known
        found = await testbed.gateway.lookup(replace(charge, reference=None))

        expect(found == outcome, f"lookup returned {found}, the charge {outcome}")

    async def test_lookup_of_an_unknown_operation_is_none(self, testbed: GatewayTestbed) -> None:
        found = await testbed.gateway.lookup(testbed.charge_request())

        expect(found is None, f"lookup of an unknown operation returned {found}")

    async def test_charge_is_found_after_a_lost_answer(self, testbed: GatewayTestbed) -> None:
        charge = testbed.charge_request()
        testbed.lose_next_answer()

        await expect_timeout(testbed.gateway, charge)
        found = await testbed.gateway.lookup(charge)
        again = await testbed.gateway.charge(charge)

        expect_success(found, "lookup after a lost answer")
        expect(again == found, f"a charge after a lost answer returned {again}, not {found}")
        await expect_totals(testbed, charge, captured=AMOUNT)

    async def test_blocked_operation_never_takes_effect(self, testbed: GatewayTestbed) -> None:
        charge = testbed.charge_request()

        for _ in range(2):
            outcome = await testbed.gateway.cancel_unknown(charge)
            expect(is_blocked(outcome), f"a blocked operation has the outcome {outcome}")
        late = await testbed.gateway.charge(charge)

        expect(is_blocked(late), f"a blocked operation arrived late with the outcome {late}")
        await expect_totals(testbed, charge)

    async def test_known_operation_is_not_blocked(self, testbed: GatewayTestbed) -> None:
        charge, outcome = await charge_once(testbed)

        found = await testbed.gateway.cancel_unknown(charge)

        expect(found == outcome, f"cancel_unknown of a known charge returned {found}")
        await expect_totals(testbed, charge, captured=AMOUNT)

    # Refunds

    async def test_refund_returns_the_amount_once(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.REFUND):
            return
        charge, _ = await charge_once(testbed)
        refund = testbed.follow_up(OperationKind.REFUND, charge)

        first = await testbed.gateway.refund(refund)
        again = await testbed.gateway.refund(refund)

        expect_success(first, "a refund")
        expect(again == first, f"a repeated refund returned {again}, the first {first}")
        expect(await testbed.gateway.lookup(refund) == first, "lookup differs from the refund")
        await expect_totals(testbed, charge, captured=AMOUNT, refunded=AMOUNT)

    async def test_refunds_never_exceed_the_capture(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.REFUND):
            return
        charge, _ = await charge_once(testbed)
        too_much = testbed.follow_up(OperationKind.REFUND, charge, AMOUNT + 1)
        whole = [testbed.follow_up(OperationKind.REFUND, charge) for _ in range(_CONCURRENCY)]

        expect_failure(await testbed.gateway.refund(too_much), "a refund above the capture")
        await asyncio.gather(*map(testbed.gateway.refund, whole), return_exceptions=True)

        await expect_totals(testbed, charge, captured=AMOUNT, refunded=AMOUNT)

    async def test_partial_refunds_add_up(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.PARTIAL_REFUND):
            return
        charge, _ = await charge_once(testbed)

        outcomes = [
            await testbed.gateway.refund(testbed.follow_up(OperationKind.REFUND, charge, amount))
            for amount in (600, 300, 200, 100)
        ]

        succeeded = [isinstance(outcome, Succeeded) for outcome in outcomes]
        expect(
            succeeded == [True, True, False, True],
            f"refunds of 600, 300, 200 and 100 of {AMOUNT} had the outcomes {outcomes}",
        )
        await expect_totals(testbed, charge, captured=AMOUNT, refunded=AMOUNT)

    async def test_wrong_refund_is_rejected(self, testbed: GatewayTestbed) -> None:
        """A refund is wrong in another currency, of a declined charge, or of an unknown charge."""
        if not testbed.can(Capability.REFUND):
            return
        charge, _ = await charge_once(testbed)
        declined = testbed.charge_request(method=testbed.declined_method)
        await testbed.gateway.charge(declined)

        for wrong in (
            testbed.follow_up(OperationKind.REFUND, charge, currency=testbed.other_currency),
            testbed.follow_up(OperationKind.REFUND, declined),
            testbed.follow_up(OperationKind.REFUND, testbed.charge_request()),
        ):
            expect_failure(await testbed.gateway.refund(wrong), f"the wrong refund {wrong}")
        await expect_totals(testbed, charge, captured=AMOUNT)

    async def test_refund_is_found_after_a_lost_answer(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.REFUND):
            return
        charge, _ = await charge_once(testbed)
        refund = testbed.follow_up(OperationKind.REFUND, charge)
        missing = await testbed.gateway.lookup(refund)
        testbed.lose_next_answer()

        await expect_timeout(testbed.gateway, refund)

        expect(missing is None, f"lookup of an unknown refund returned {missing}")
        expect_success(await testbed.gateway.lookup(refund), "lookup after a lost answer")
        expect_success(await testbed.gateway.refund(refund), "a refund after a lost answer")
        await expect_totals(testbed, charge, captured=AMOUNT, refunded=AMOUNT)

    # Capabilities

    async def test_capabilities_are_honest(self, testbed: GatewayTestbed) -> None:
        """Every declared capability works, and no other capability works."""
        gateway, found = testbed.gateway, set()
        for capability in Capability:
            if await is_supported(testbed, capability):
                found.add(capability)

        for capability in set(gateway.capabilities) ^ found:
            declared = capability in gateway.capabilities
            expect(False, f"{capability} is {'declared and missing' if declared else 'hidden'}")
        for capability, needed in _REQUIRED_CAPABILITIES.items():
            is_consistent = needed in found or capability not in found
            expect(is_consistent, f"{capability} is declared without {needed}")

    # Webhooks

    async def test_signed_webhook_is_parsed(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.WEBHOOKS):
            return
        charge, outcome = await charge_once(testbed)

        event = receive(testbed, testbed.webhook_body(charge, outcome), testbed.NOW)
        again = receive(testbed, testbed.webhook_body(charge, outcome), testbed.NOW)
        news = testbed.gateway.parse_news(event)

        expect(event.provider == testbed.gateway.provider, "an event names another provider")
        expect(event.operation_id == charge.operation_id, "an event names another operation")
        expect(event.event_id == again.event_id, "the same event has two ids")
        expect(news.kind is OperationKind.CHARGE, f"the news is about a {news.kind}")
        expect(isinstance(news.outcome, Succeeded), f"the news says {news.outcome}")
        expect(news.amount in {None, charge.amount}, f"the news names the amount {news.amount}")

    async def test_events_of_two_operations_have_two_ids(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.WEBHOOKS):
            return
        bodies = [testbed.webhook_body(*await charge_once(testbed)) for _ in range(2)]

        first, second = (receive(testbed, body, testbed.NOW).event_id for body in bodies)

        expect(first != second, f"two events have the id {first}")

    async def test_forged_webhook_is_rejected(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.WEBHOOKS):
            return
        body = testbed.webhook_body(*await charge_once(testbed))
        headers = testbed.sign_webhook(body, testbed.NOW)
        other = testbed.sign_webhook(body + b" ", testbed.NOW)
        unreadable = dict.fromkeys(headers, "\u00e9,,=;t=x,v1=")

        for what, forged, changed in (
            ("without a signature", {}, body),
            ("with an empty signature", dict.fromkeys(headers, ""), body),
            ("with an unreadable signature", unreadable, body),
            ("with the signature of another body", other, body),
            ("with a changed body", headers, body.replace(b":", b": ", 1)),
        ):
            expect_forged(testbed, dict(forged), changed, what)

    async def test_webhook_of_another_time_is_rejected(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.WEBHOOKS):
            return
        body = testbed.webhook_body(*await charge_once(testbed))

        for sent_at in (testbed.NOW - _LONG_AGO, testbed.NOW + _LONG_AGO):
            headers = dict(testbed.sign_webhook(body, sent_at))
            expect_forged(testbed, headers, body, f"of {sent_at}, received at {testbed.NOW}")

    async def test_signed_garbage_is_rejected(self, testbed: GatewayTestbed) -> None:
        """Every error is a DomainError with a status below 500: the sender caused the error."""
        if not testbed.can(Capability.WEBHOOKS):
            return
        for body in _GARBAGE:
            try:
                event = receive(testbed, body, testbed.NOW)
            except DomainError as error:
                expect(
                    error.status < HTTPStatus.INTERNAL_SERVER_ERROR,
                    f"garbage is answered with {error.status}",
                )
            except Exception as error:  # noqa: BLE001 - any other error fails the test
                expect(False, f"garbage raises {error!r}: {body[:20]!r}")
            else:
                expect(event.operation_id is None, f"garbage is an event: {body[:20]!r}")
