"""Every fault of a provider, for each provider: no second charge, and no unknown status remains."""

from collections.abc import AsyncIterator

import pytest

from markethall.payments.contract import PaymentStatus, RefundStatus
from markethall.payments.contract.api import PaymentView
from markethall.payments.contract.statuses import OperationKind
from markethall.shared.persistence.postgres import Postgres
from tests.payments.conftest import attempt_without_key
from tests.payments.money_shops import PROVIDERS, SHORT_TIMEOUT, MoneyShop, open_money_shop
from tests.payments.provider_faults import SLOW_FAULTS, WITHOUT_EFFECT, ProviderFault

# all faults with the memory storage; on Postgres only a few, because most do not depend on it
CASES = [("memory", fault) for fault in ProviderFault] + [
    ("sql", fault)
    for fault in (
        ProviderFault.TIMEOUT_AFTER,
        ProviderFault.DELAYED_REQUEST,
        ProviderFault.GARBAGE,
    )
]
with_faults = pytest.mark.parametrize(("storage", "fault"), CASES, indirect=["storage"])
with_providers = pytest.mark.parametrize("provider", PROVIDERS)


@pytest.fixture
async def shop(
    storage: tuple[str, Postgres | None], provider: str, request: pytest.FixtureRequest
) -> AsyncIterator[MoneyShop]:
    is_slow = request.node.callspec.params.get("fault") in SLOW_FAULTS
    async with open_money_shop(provider, *storage, SHORT_TIMEOUT if is_slow else 8) as shop:
        yield shop


@with_providers
@with_faults
async def test_charge_is_taken_at_most_once(shop: MoneyShop, fault: ProviderFault) -> None:
    """The customer retries with the same key, then pays again if the charge has failed."""
    first = await shop.paid()
    payment, attempt = await shop.app.open(), attempt_without_key()
    shop.fail(OperationKind.CHARGE, fault)

    await shop.app.confirm(payment, shop.ok, attempt)
    await shop.app.confirm(payment, shop.ok, attempt)
    (settled,) = await shop.settle(payment)
    await shop.release_delayed()
    (settled,) = await shop.settle(payment)

    has_effect = fault not in WITHOUT_EFFECT
    assert settled.status is (PaymentStatus.CAPTURED if has_effect else PaymentStatus.FAILED)
    await shop.assert_agrees(first, payment)
    await assert_can_be_paid(shop, settled)
    await shop.assert_agrees(first, payment)


@with_providers
@with_faults
async def test_refund_is_made_exactly_once(shop: MoneyShop, fault: ProviderFault) -> None:
    first, payment = await shop.paid(), await shop.paid()
    shop.fail(OperationKind.REFUND, fault)

    refund = await shop.app.refund(payment, 600)
    again = await shop.app.refund(payment, 600, refund.refund_id)
    await shop.settle(payment)
    await shop.release_delayed()
    await shop.settle(payment)

    assert again.refund_id == refund.refund_id
    assert (await shop.app.current(payment)).refunded.amount == 600
    await shop.assert_agrees(first, payment)


@with_providers
async def test_outage_of_an_hour_ends_without_unknown_status(shop: MoneyShop) -> None:
    paid = await shop.paid()
    shop.fail(OperationKind.CHARGE, ProviderFault.TIMEOUT_AFTER, ProviderFault.TIMEOUT_BEFORE)
    before = [await shop.app.confirm(await shop.app.open(), shop.ok) for _ in range(2)]

    shop.set_down(is_down=True)
    during = await shop.app.confirm(await shop.app.open(), shop.ok)
    refund = await shop.app.refund(paid, 500)
    for _ in range(4):
        shop.app.clock.advance(15 * 60)
        await shop.app.run_periodic_jobs()
    unsettled = [(await shop.app.current(payment)).status for payment in (*before, during)]
    shop.set_down(is_down=False)
    await shop.settle(paid, *before, during)
    await shop.app.run_periodic_jobs()
    after = [await shop.app.current(payment) for payment in (paid, *before, during)]

    assert unsettled == [PaymentStatus.UNKNOWN] * 3
    assert refund.status is RefundStatus.UNKNOWN
    assert [payment.status for payment in after] == [
        PaymentStatus.CAPTURED, PaymentStatus.CAPTURED,
        PaymentStatus.EXPIRED, PaymentStatus.EXPIRED,
    ]  # fmt: skip
    assert after[0].refunded.amount == 500
    await shop.assert_agrees(*after)


async def assert_can_be_paid(shop: MoneyShop, payment: PaymentView) -> None:
    """Check that a failed charge can be repeated, and that the payment is then captured."""
    if payment.status is PaymentStatus.FAILED:
        payment = await shop.app.confirm(payment, shop.ok)
    assert payment.status is PaymentStatus.CAPTURED
