from dataclasses import replace

from markethall.payments.ports import Capability, Failed
from markethall.shared.kernel.ids import new_id
from markethall.testing.gateway_checks import (
    charge_of_saved,
    charge_once,
    expect,
    expect_failure,
    expect_success,
    expect_timeout,
    expect_totals,
    save_method,
    saved_method_of,
)
from markethall.testing.gateway_testbed import AMOUNT, GatewayTestbed


class SavedMethodConformance:
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


async def _detach(testbed: GatewayTestbed, token: str) -> None:
    try:
        await testbed.gateway.detach_method(token)
    except Exception as error:  # noqa: BLE001 - any error fails the test
        expect(False, f"detaching a method raises {error!r}")
