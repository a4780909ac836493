from markethall.payments.ports import Capability
from markethall.testing.gateway_checks import (
    expect_failure,
    expect_success,
    expect_totals,
    start_action,
)
from markethall.testing.gateway_testbed import AMOUNT, GatewayTestbed


class ActionConformance:
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
