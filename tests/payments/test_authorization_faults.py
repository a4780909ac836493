"""Every fault of a provider in authorizations, captures and voids, for each provider."""

from collections.abc import AsyncIterator

import pytest

from markethall.payments.contract import PaymentStatus
from markethall.payments.contract.api import PaymentView
from markethall.payments.contract.statuses import OperationKind
from markethall.shared.persistence.postgres import Postgres
from tests.payments.conftest import attempt_without_key
from tests.payments.money_shops import PROVIDERS, SHORT_TIMEOUT, MoneyShop, open_money_shop
from tests.payments.provider_faults import SLOW_FAULTS, WITHOUT_EFFECT, ProviderFault

# all faults with the memory storage; on Postgres only a few, because most do not depend on it
CASES = [("memory", fault) for fault in ProviderFault] + [
    ("sql", ProviderFault.TIMEOUT_AFTER),
    ("sql", ProviderFault.DELAYED_REQUEST),
]
with_faults = pytest.mark.parametrize(("storage", "fault"), CASES, indirect=["storage"])
with_providers = pytest.mark.parametrize("provider", PROVIDERS)


@pytest.fixture
async def shop(
    storage: tuple[str, Postgres | None], provider: str, request: pytest.FixtureRequest
) -> AsyncIterator[MoneyShop]:
    is_slow = request.node.callspec.params.get("fault") in SLOW_FAULTS
    timeout = SHORT_TIMEOUT if is_slow else 8
    async with open_money_shop(
        provider, *storage, timeout, payments_capture="on_fulfilment"
    ) as shop:
        yield shop


async def authorized(shop: MoneyShop) -> PaymentView:
    payment = await shop.app.confirm(await shop.app.open(), shop.ok)
    assert payment.status is PaymentStatus.AUTHORIZED
    return payment


async def settle_with_delayed_requests(shop: MoneyShop, payment: PaymentView) -> PaymentView:
    """Reconcile before and after the delayed requests take effect."""
    await shop.settle(payment)
    await shop.release_delayed()
    (settled,) = await shop.settle(payment)
    return settled


@with_providers
@with_faults
async def test_payment_is_authorized_at_most_once(shop: MoneyShop, fault: ProviderFault) -> None:
    first = await authorized(shop)
    payment, attempt = await shop.app.open(), attempt_without_key()
    shop.fail(OperationKind.AUTHORIZE, fault)

    for _ in range(2):
        await shop.app.confirm(payment, shop.ok, attempt)
    settled = await settle_with_delayed_requests(shop, payment)
    has_effect = fault not in WITHOUT_EFFECT
    if settled.status is PaymentStatus.FAILED:
        payment = await shop.app.confirm(payment, shop.ok)

    assert settled.status is (PaymentStatus.AUTHORIZED if has_effect else PaymentStatus.FAILED)
    assert (await shop.app.current(payment)).status is PaymentStatus.AUTHORIZED
    assert await shop.live_authorizations(payment) == 1
    await shop.assert_agrees(first, payment)


@with_providers
@with_faults
async def test_capture_is_made_exactly_once(shop: MoneyShop, fault: ProviderFault) -> None:
    first, payment, attempt = await authorized(shop), await authorized(shop), attempt_without_key()
    await shop.app.capture(first)
    shop.fail(OperationKind.CAPTURE, fault)

    for _ in range(2):
        await shop.app.capture(payment, 600, attempt)
    settled = await settle_with_delayed_requests(shop, payment)

    assert settled.captured.amount == 600
    await shop.assert_agrees(first, payment)
    assert await shop.app.posting_count() == 2


@with_providers
@with_faults
async def test_void_takes_no_money(shop: MoneyShop, fault: ProviderFault) -> None:
    first, payment, attempt = await authorized(shop), await authorized(shop), attempt_without_key()
    await shop.app.void(first)
    shop.fail(OperationKind.VOID, fault)

    for _ in range(2):
        await shop.app.void(payment, attempt)
    settled = await settle_with_delayed_requests(shop, payment)

    assert settled.status is PaymentStatus.VOIDED
    assert await shop.live_authorizations(payment) == 0
    await shop.assert_agrees(first, payment)
    assert await shop.app.posting_count() == 0


@with_providers
async def test_outage_of_an_hour_ends_without_open_captures(shop: MoneyShop) -> None:
    captured, voided, refunded = [await authorized(shop) for _ in range(3)]
    await shop.app.capture(refunded, 1999)

    shop.set_down(is_down=True)
    await shop.app.capture(captured, 600)
    await shop.app.void(voided)
    await shop.app.refund(refunded, 500)
    for _ in range(4):
        shop.app.clock.advance(15 * 60)
        await shop.app.run_periodic_jobs()
    during = [await shop.open_operations(payment) for payment in (captured, voided, refunded)]
    shop.set_down(is_down=False)
    after = await shop.settle(captured, voided, refunded)

    assert [len(operations) for operations in during] == [1, 1, 1]
    assert [(one.captured.amount, one.refunded.amount) for one in after] == [
        (600, 0), (0, 0), (1999, 500),
    ]  # fmt: skip
    assert after[1].status is PaymentStatus.VOIDED
    await shop.assert_agrees(*after)
