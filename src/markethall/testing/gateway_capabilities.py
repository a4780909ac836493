"""The tests of the optional capabilities: a part of the conformance suite of payment gateways."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Final

from markethall.payments.ports import Capability, Failed, OperationKind, ReportKind, Succeeded
from markethall.shared.kernel.ids import new_id
from markethall.testing.gateway_testbed import (
    AMOUNT,
    REPORT_END,
    REPORT_START,
    GatewayTestbed,
    authorize_once,
    charge_of_saved,
    charge_once,
    expect,
    expect_failure,
    expect_reported,
    expect_success,
    expect_timeout,
    expect_totals,
    lines_of,
    report_lines,
    save_method,
    saved_method_of,
    start_action,
)

_LONG_AGO: Final = timedelta(hours=1)


class CapabilityConformance:
    """The tests of capabilities that a gateway need not have."""

    # Actions of the customer

    async def test_cancelled_action_never_succeeds(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.CANCEL_ACTION):
            return
        charge = await start_action(testbed)

        for _ in range(2):
            expect_failure(await testbed.gateway.cancel_action(charge), "a cancelled action")
        testbed.finish_action(charge.operation_id)

        expect_failure(await testbed.gateway.lookup(charge), "a cancelled action that is finished")
        await expect_totals(testbed, charge)

    async def test_finished_action_is_not_cancelled(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.CANCEL_ACTION):
            return
        charge = await start_action(testbed)
        await expect_totals(testbed, charge)
        testbed.finish_action(charge.operation_id)

        found = await testbed.gateway.lookup(charge)

        expect_success(found, "lookup of a finished action")
        expect_success(await testbed.gateway.cancel_action(charge), "a finished action")
        await expect_totals(testbed, charge, captured=AMOUNT)

    # Disputes

    async def test_dispute_names_its_operation(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.DISPUTES):
            return
        charge, _ = await charge_once(testbed)
        await charge_once(testbed)
        reference = testbed.open_dispute(charge.operation_id)

        found = await testbed.gateway.lookup_dispute(reference)

        if found is None:
            raise AssertionError("a dispute is not found")
        dispute = found.dispute
        expect(found.operation_id == charge.operation_id, "a dispute names another operation")
        expect(dispute.amount == charge.amount, f"a dispute has the amount {dispute.amount}")
        expect(dispute.provider_reference == reference, "a dispute has another id")
        expect(bool(dispute.status and dispute.reason), "a dispute has no status or no reason")

    async def test_unknown_dispute_is_none(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.DISPUTES):
            return
        found = await testbed.gateway.lookup_dispute("unknown")

        expect(found is None, f"lookup of an unknown dispute returned {found}")

    # Reports

    async def test_report_lists_what_has_moved_money(self, testbed: GatewayTestbed) -> None:
        """Charges and refunds are listed once, with their amounts; a decline is not listed."""
        if not testbed.can(Capability.REPORT):
            return
        charge, outcome = await charge_once(testbed)
        declined = testbed.charge_request(method=testbed.declined_method)
        decline = await testbed.gateway.charge(declined)

        await expect_reported(testbed, charge, outcome, ReportKind.PAYMENT)
        expect(not await lines_of(testbed, declined, decline), "the report has a declined charge")
        for amount in (300, 200) if testbed.can(Capability.PARTIAL_REFUND) else ():
            refund = testbed.follow_up(OperationKind.REFUND, charge, amount)
            refunded = await testbed.gateway.refund(refund)
            await expect_reported(testbed, refund, refunded, ReportKind.REFUND)
        await expect_reported(testbed, charge, outcome, ReportKind.PAYMENT)

    async def test_report_lists_captures(self, testbed: GatewayTestbed) -> None:
        """Each capture is listed with its amount; an authorization is not listed."""
        if not testbed.can(Capability.REPORT, Capability.AUTHORIZE):
            return
        authorization = await authorize_once(testbed)
        authorized = Succeeded(authorization.reference or "")
        lines = await lines_of(testbed, authorization, authorized)
        expect(not lines, "the report has an authorization that is not captured")

        amount = 600 if testbed.can(Capability.PARTIAL_CAPTURE) else AMOUNT
        capture = testbed.follow_up(OperationKind.CAPTURE, authorization, amount)
        outcome = await testbed.gateway.capture(capture)

        await expect_reported(testbed, capture, outcome, ReportKind.PAYMENT)

    async def test_report_has_only_its_period(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.REPORT):
            return
        await charge_once(testbed)

        (line, *_) = await report_lines(testbed)
        before = await report_lines(testbed, REPORT_START, line.occurred_at)
        after = await report_lines(testbed, line.occurred_at + _LONG_AGO, REPORT_END)

        expect(not before, "the report has a line at the end of its period, or later")
        expect(not after, "the report has a line before its period")
        expect(line.occurred_at.tzinfo is not None, "a line has a time without an offset")

    # Saved methods

    async def test_saved_method_pays_again(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.SAVED_METHODS):
            return
        first, saved = await save_method(testbed)
        charge = charge_of_saved(testbed, saved, first.customer)

        expect(testbed.gateway.accepts(saved.token), f"does not accept the token {saved.token}")
        expect_success(await testbed.gateway.charge(charge), "a charge of a saved method")
        await expect_totals(testbed, charge, captured=AMOUNT)

    async def test_method_is_saved_only_on_request(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.SAVED_METHODS):
            return
        _, outcome = await charge_once(testbed)
        customer = await testbed.gateway.ensure_customer(new_id())
        declined = testbed.charge_request(method=testbed.declined_method)
        declined = replace(declined, customer=customer, saves_method=True)

        saved = saved_method_of(outcome)
        expect(saved is None, f"a charge has saved {saved} without a request")
        expect_failure(await testbed.gateway.charge(declined), "a declined charge")

    async def test_saved_method_is_found_after_a_lost_answer(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.SAVED_METHODS):
            return
        customer = await testbed.gateway.ensure_customer(new_id())
        charge = replace(testbed.charge_request(), customer=customer, saves_method=True)
        testbed.lose_next_answer()

        await expect_timeout(testbed.gateway, charge)
        found = await testbed.gateway.lookup(charge)
        again = await testbed.gateway.charge(charge)

        expect(saved_method_of(found) is not None, f"lookup of a saving charge returned {found}")
        expect(again == found, f"a saving charge after a lost answer returned {again}, not {found}")

    async def test_saved_method_belongs_to_its_customer(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.SAVED_METHODS):
            return
        first, saved = await save_method(testbed)
        other = await testbed.gateway.ensure_customer(new_id())

        expect(other != first.customer, f"two users have the customer {other}")
        for customer in (other, None):
            charge = charge_of_saved(testbed, saved, customer)
            what = f"a charge of a saved method of another customer, {customer},"
            expect_failure(await testbed.gateway.charge(charge), what)
            await expect_totals(testbed, charge)

    async def test_detached_method_does_not_pay(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.SAVED_METHODS):
            return
        first, saved = await save_method(testbed)

        for _ in range(2):
            await _detach(testbed, saved.token)
        charge = charge_of_saved(testbed, saved, first.customer)
        outcome = await testbed.gateway.charge(charge)

        expect(isinstance(outcome, Failed), f"a detached method has the outcome {outcome}")
        await expect_totals(testbed, charge)

    # Authorizations

    async def test_authorization_takes_nothing_before_its_capture(
        self, testbed: GatewayTestbed
    ) -> None:
        if not testbed.can(Capability.AUTHORIZE):
            return
        authorization = await authorize_once(testbed)
        await expect_totals(testbed, authorization)
        capture = testbed.follow_up(OperationKind.CAPTURE, authorization)

        first = await testbed.gateway.capture(capture)
        again = await testbed.gateway.capture(capture)

        expect_success(first, "a capture")
        expect(again == first, f"a repeated capture returned {again}, the first {first}")
        expect(await testbed.gateway.lookup(capture) == first, "lookup differs from the capture")
        await expect_totals(testbed, authorization, captured=AMOUNT)

    async def test_captures_never_exceed_the_authorization(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.AUTHORIZE):
            return
        authorization = await authorize_once(testbed)
        too_much = testbed.follow_up(OperationKind.CAPTURE, authorization, AMOUNT + 1)
        whole = [testbed.follow_up(OperationKind.CAPTURE, authorization) for _ in range(3)]

        expect_failure(await testbed.gateway.capture(too_much), "a capture above the authorization")
        await asyncio.gather(*map(testbed.gateway.capture, whole), return_exceptions=True)

        await expect_totals(testbed, authorization, captured=AMOUNT)

    async def test_partial_captures_add_up(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.PARTIAL_CAPTURE):
            return
        several = testbed.can(Capability.MULTIPLE_CAPTURES)
        authorization = await authorize_once(testbed)

        outcomes = [
            await testbed.gateway.capture(
                testbed.follow_up(OperationKind.CAPTURE, authorization, amount)
            )
            for amount in (600, 500, 400)
        ]

        succeeded = [isinstance(outcome, Succeeded) for outcome in outcomes]
        expect(
            succeeded == [True, False, several],
            f"captures of 600, 500 and 400 of {AMOUNT} had the outcomes {outcomes}",
        )
        await expect_totals(testbed, authorization, captured=AMOUNT if several else 600)

    async def test_refunds_never_exceed_the_captures(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.PARTIAL_CAPTURE, Capability.REFUND):
            return
        authorization = await authorize_once(testbed)
        await testbed.gateway.capture(testbed.follow_up(OperationKind.CAPTURE, authorization, 600))

        too_much = testbed.follow_up(OperationKind.REFUND, authorization, 601)
        whole = testbed.follow_up(OperationKind.REFUND, authorization, 600)

        expect_failure(await testbed.gateway.refund(too_much), "a refund above the captures")
        expect_success(await testbed.gateway.refund(whole), "a refund of the captures")
        await expect_totals(testbed, authorization, captured=600, refunded=600)

    async def test_voided_authorization_is_not_captured(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.AUTHORIZE):
            return
        authorization = await authorize_once(testbed)
        void = testbed.follow_up(OperationKind.VOID, authorization)

        first = await testbed.gateway.void(void)
        again = await testbed.gateway.void(void)
        capture = testbed.follow_up(OperationKind.CAPTURE, authorization)

        expect_success(first, "a void")
        expect(again == first, f"a repeated void returned {again}, the first {first}")
        expect(await testbed.gateway.lookup(void) == first, "lookup differs from the void")
        expect_failure(await testbed.gateway.capture(capture), "a capture after the void")
        await expect_totals(testbed, authorization)

    async def test_captured_authorization_is_not_voided(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.AUTHORIZE):
            return
        authorization = await authorize_once(testbed)
        await testbed.gateway.capture(testbed.follow_up(OperationKind.CAPTURE, authorization))

        outcome = await testbed.gateway.void(testbed.follow_up(OperationKind.VOID, authorization))

        expect_failure(outcome, "a void after the capture")
        await expect_totals(testbed, authorization, captured=AMOUNT)

    async def test_capture_is_found_after_a_lost_answer(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.PARTIAL_CAPTURE):
            return
        authorization = await authorize_once(testbed)
        capture = testbed.follow_up(OperationKind.CAPTURE, authorization, 400)
        missing = await testbed.gateway.lookup(capture)
        testbed.lose_next_answer()

        await expect_timeout(testbed.gateway, capture)

        expect(missing is None, f"lookup of an unknown capture returned {missing}")
        expect_success(await testbed.gateway.lookup(capture), "lookup after a lost answer")
        expect_success(await testbed.gateway.capture(capture), "a capture after a lost answer")
        await expect_totals(testbed, authorization, captured=400)

    async def test_final_capture_releases_the_rest(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.MULTIPLE_CAPTURES):
            return
        authorization = await authorize_once(testbed)
        final = testbed.follow_up(OperationKind.CAPTURE, authorization, 600, is_final=True)
        later = testbed.follow_up(OperationKind.CAPTURE, authorization, 400)

        expect_success(await testbed.gateway.capture(final), "a final capture")
        expect_failure(await testbed.gateway.capture(later), "a capture after the final one")

        await expect_totals(testbed, authorization, captured=600)

    async def test_void_after_a_capture_releases_the_rest(self, testbed: GatewayTestbed) -> None:
        if not testbed.can(Capability.MULTIPLE_CAPTURES):
            return
        authorization = await authorize_once(testbed)
        await testbed.gateway.capture(testbed.follow_up(OperationKind.CAPTURE, authorization, 600))
        void = testbed.follow_up(OperationKind.VOID, authorization, 400)
        later = testbed.follow_up(OperationKind.CAPTURE, authorization, 400)

        expect_success(await testbed.gateway.void(void), "a void after a capture")
        expect_failure(await testbed.gateway.capture(later), "a capture after the void")

        await expect_totals(testbed, authorization, captured=600)


async def _detach(testbed: GatewayTestbed, token: str) -> None:
    try:
        await testbed.gateway.detach_method(token)
    except Exception as error:  # noqa: BLE001 - any error fails the test
        expect(False, f"detaching a method raises {error!r}")
