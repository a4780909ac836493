import asyncio

from markethall.payments.ports import Capability, OperationKind, Succeeded
from markethall.testing.gateway_checks import (
    authorize_once,
    expect,
    expect_failure,
    expect_success,
    expect_timeout,
    expect_totals,
)
from markethall.testing.gateway_testbed import AMOUNT, GatewayTestbed


class AuthorizationConformance:
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
