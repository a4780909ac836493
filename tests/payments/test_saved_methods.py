"""Saved payment methods, at the sandbox on each storage and over HTTP at Stripe."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from markethall.payments.contract import PaymentStatus, UnknownPaymentMethod
from markethall.payments.contract.api import SavedPaymentMethodView
from markethall.payments.contract.errors import SavedPaymentMethodNotFound, UnsupportedByProvider
from markethall.payments.domain.operation import Succeeded
from markethall.payments.domain.saved_method import MethodDetails
from markethall.payments.ports import PaymentGatewayTimeout
from markethall.payments.service.saved_methods import MAX_CONCURRENT_DETACHES
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import PageQuery
from markethall.shared.persistence.postgres import Postgres
from tests.payments.conftest import (
    Killed,
    PaymentsApp,
    attempt_without_key,
    user_context,
)
from tests.payments.stripe_app import DECLINED, NEEDS_ACTION, OK, StripeApp, stripe_app
from tests.payments.stripe_server import Fault, StripeServer


async def saved_by(app: PaymentsApp, user_id: UUID, **query: Any) -> list[SavedPaymentMethodView]:
    page = await app.payment_api.list_saved_methods(user_context(user_id), PageQuery(**query))
    return list(page.items)


async def save(app: PaymentsApp, user_id: UUID, method: str) -> SavedPaymentMethodView:
    """Pay with a method, save it and return it."""
    paid = await app.confirm(await app.open(user_id=user_id), method, save_method=True)
    assert paid.status is PaymentStatus.CAPTURED
    return (await saved_by(app, user_id))[0]


async def pay(app: PaymentsApp, user_id: UUID, method: object) -> PaymentStatus:
    return (await app.confirm(await app.open(user_id=user_id), str(method))).status


async def token_of(app: PaymentsApp, saved: SavedPaymentMethodView) -> str:
    async with app.container.database().read_session() as store:
        method = await store.get_saved_method(saved.saved_payment_method_id)
    assert method
    return method.details.token


class TestAtTheSandbox:
    async def test_method_is_saved_and_pays_again(self, payments_app: PaymentsApp) -> None:
        user_id = new_id()

        saved = await save(payments_app, user_id, "sandbox_ok")

        shown = (saved.provider, saved.brand, saved.last4, saved.exp_month, saved.exp_year)
        assert shown == ("sandbox", "sandbox", "4242", 12, 2099)
        assert await pay(payments_app, user_id, saved.saved_payment_method_id) == "captured"
        token = await token_of(payments_app, saved)
        assert await pay(payments_app, user_id, token) == "captured"
        assert len(await saved_by(payments_app, user_id)) == 1
        assert await payments_app.charged() == 3

    async def test_method_of_another_user_is_not_shown_and_not_charged(
        self, payments_app: PaymentsApp
    ) -> None:
        saved, thief = await save(payments_app, new_id(), "sandbox_ok"), new_id()
        await save(payments_app, thief, "sandbox_ok")

        token = await token_of(payments_app, saved)
        for method in (saved.saved_payment_method_id, token, new_id()):
            with pytest.raises(UnknownPaymentMethod):
                await pay(payments_app, thief, method)
        with pytest.raises(SavedPaymentMethodNotFound):
            await payments_app.payment_api.delete_saved_method(
                user_context(thief), saved.saved_payment_method_id
            )

        assert saved not in await saved_by(payments_app, thief)
        assert await payments_app.charged() == 2

    async def test_method_of_another_user_is_refused_like_one_that_does_not_exist(
        self, payments_app: PaymentsApp
    ) -> None:
        saved = await save(payments_app, new_id(), "sandbox_ok")

        for method in (
            str(saved.saved_payment_method_id).upper(),
            await token_of(payments_app, saved),
            str(new_id()).upper(),
        ):
            with pytest.raises(UnknownPaymentMethod) as refused:
                await pay(payments_app, new_id(), method)
            assert refused.value.details == {"payment_method": method}

    async def test_nothing_is_saved_unless_the_customer_wants_it(
        self, payments_app: PaymentsApp
    ) -> None:
        user_id = new_id()

        await pay(payments_app, user_id, "sandbox_ok")
        declined = await payments_app.open(user_id=user_id)
        await payments_app.confirm(declined, "sandbox_declined", save_method=True)

        assert not await saved_by(payments_app, user_id)

    async def test_provider_that_cannot_save_methods_is_named(
        self, payments_app: PaymentsApp
    ) -> None:
        payment = await payments_app.open()

        with pytest.raises(UnsupportedByProvider):
            await payments_app.confirm(payment, "manual:bank_transfer", save_method=True)

        assert (await payments_app.current(payment)).status is PaymentStatus.CREATED

    async def test_payment_of_zero_saves_nothing(self, payments_app: PaymentsApp) -> None:
        user_id = new_id()
        payment = await payments_app.open(0, user_id=user_id)

        paid = await payments_app.confirm(payment, "sandbox_ok", save_method=True)

        assert (paid.status, paid.provider) == (PaymentStatus.CAPTURED, "free")
        assert not await saved_by(payments_app, user_id)

    async def test_method_is_saved_when_the_customer_has_acted(
        self, payments_app: PaymentsApp
    ) -> None:
        user_id, attempt = new_id(), attempt_without_key()
        payment = await payments_app.open(user_id=user_id)

        waiting = await payments_app.confirm(
            payment, "sandbox_action_required", attempt, save_method=True
        )
        before = await saved_by(payments_app, user_id)
        await payments_app.send(attempt.id, Succeeded(""))

        assert (waiting.status, before) == (PaymentStatus.REQUIRES_ACTION, [])
        assert len(await saved_by(payments_app, user_id)) == 1

    async def test_method_is_saved_after_a_lost_answer(self, payments_app: PaymentsApp) -> None:
        user_id = new_id()
        payment = await payments_app.open(user_id=user_id)

        unknown = await payments_app.confirm(payment, "sandbox_timeout_after", save_method=True)
        await payments_app.reconcile()

        assert unknown.status is PaymentStatus.UNKNOWN
        assert len(await saved_by(payments_app, user_id)) == 1

    async def test_retry_after_a_crash_saves_once(self, payments_app: PaymentsApp) -> None:
        user_id, attempt = new_id(), attempt_without_key()
        payment = await payments_app.open(user_id=user_id)
        await payments_app.gateway.ensure_customer(user_id)
        payments_app.gateway.after = Killed()

        with pytest.raises(Killed):
            await payments_app.confirm(payment, "sandbox_ok", attempt, save_method=True)
        for _ in range(2):
            await payments_app.confirm(payment, "sandbox_ok", attempt, save_method=True)

        assert len(await saved_by(payments_app, user_id)) == 1
        assert await payments_app.charged() == 1

    async def test_deleted_method_is_detached_and_cannot_be_used(
        self, payments_app: PaymentsApp
    ) -> None:
        user_id = new_id()
        saved = await save(payments_app, user_id, "sandbox_ok")
        token = await token_of(payments_app, saved)

        for _ in range(2):
            await payments_app.payment_api.delete_saved_method(
                user_context(user_id), saved.saved_payment_method_id
            )

        assert not await saved_by(payments_app, user_id)
        for method in (saved.saved_payment_method_id, token):
            with pytest.raises(UnknownPaymentMethod):
                await pay(payments_app, user_id, method)
        at_sandbox = await payments_app.sandbox_ledger.get_saved_method(token)
        assert at_sandbox
        assert not at_sandbox.is_attached

    @pytest.mark.parametrize("moment", ["before", "after"])
    async def test_method_is_detached_after_a_lost_answer(
        self, payments_app: PaymentsApp, moment: str
    ) -> None:
        user_id = new_id()
        saved = await save(payments_app, user_id, "sandbox_ok")
        token = await token_of(payments_app, saved)
        setattr(payments_app.gateway, moment, PaymentGatewayTimeout())

        await payments_app.payment_api.delete_saved_method(
            user_context(user_id), saved.saved_payment_method_id
        )
        hidden = await saved_by(payments_app, user_id)
        await payments_app.run_periodic_jobs()

        assert hidden == []
        at_sandbox = await payments_app.sandbox_ledger.get_saved_method(token)
        assert at_sandbox
        assert not at_sandbox.is_attached
        calls = payments_app.gateway.calls
        payments_app.clock.advance(3600)
        await payments_app.run_periodic_jobs()
        assert payments_app.gateway.calls == calls, "a detached method is detached again"

    async def test_one_run_of_the_job_detaches_few_methods(self, payments_app: PaymentsApp) -> None:
        """The other jobs wait meanwhile, for each method up to the timeout of the provider."""
        user_id, gateway = new_id(), payments_app.gateway
        count = MAX_CONCURRENT_DETACHES + 2
        for _ in range(count):
            await save(payments_app, user_id, "sandbox_ok")
        async with payments_app.container.database().transaction() as store:
            await store.delete_saved_methods(user_id, None, payments_app.clock(), count)
        calls = [gateway.calls]

        for _ in range(3):
            await payments_app.container.saved_methods().detach_deleted()
            calls.append(gateway.calls)

        assert [calls[0] + MAX_CONCURRENT_DETACHES, calls[0] + count, calls[0] + count] == calls[1:]

    async def test_late_news_do_not_save_a_deleted_method_again(
        self, payments_app: PaymentsApp
    ) -> None:
        user_id, attempt = new_id(), attempt_without_key()
        payment = await payments_app.open(user_id=user_id)
        await payments_app.confirm(payment, "sandbox_ok", attempt, save_method=True)
        await payments_app.payment_api.delete_saved_methods(user_context(user_id))

        await payments_app.send(attempt.id, Succeeded(""))
        await payments_app.reconcile()

        assert not await saved_by(payments_app, user_id)

    async def test_tombstone_keeps_no_details(self, payments_app: PaymentsApp) -> None:
        user_id = new_id()
        saved = await save(payments_app, user_id, "sandbox_ok")

        await payments_app.payment_api.delete_saved_methods(user_context(user_id))

        async with payments_app.container.database().read_session() as store:
            tombstone = await store.get_saved_method(saved.saved_payment_method_id)
        assert tombstone
        assert tombstone.details == MethodDetails(tombstone.details.token)
        assert tombstone.detach_at is None

    async def test_all_methods_of_the_user_are_deleted(self, payments_app: PaymentsApp) -> None:
        user_id, other_id = new_id(), new_id()
        for owner in (user_id, user_id, other_id):
            await save(payments_app, owner, "sandbox_ok")

        await payments_app.payment_api.delete_saved_methods(user_context(user_id))

        assert not await saved_by(payments_app, user_id)
        assert len(await saved_by(payments_app, other_id)) == 1

    async def test_pages_show_each_method_once(self, payments_app: PaymentsApp) -> None:
        user_id = new_id()
        for _ in range(3):
            await save(payments_app, user_id, "sandbox_ok")
        expected = await saved_by(payments_app, user_id)

        found: list[SavedPaymentMethodView] = []
        cursor = None
        for _ in range(3):
            page = await payments_app.payment_api.list_saved_methods(
                user_context(user_id), PageQuery(limit=1, cursor=cursor)
            )
            found += page.items
            cursor = page.next_cursor

        assert (found, cursor) == (expected, None)
        assert [one.created_at for one in found] == sorted(
            (one.created_at for one in found), reverse=True
        )


@pytest.mark.parametrize("last4", ["", "123", "12345", "4242424242424242", "12a4", "١٢٣٤"])
def test_only_four_digits_of_a_card_number_are_stored(last4: str) -> None:
    with pytest.raises(ValueError, match="last4"):
        MethodDetails("token", last4=last4)


class TestAtStripe:
    @pytest.fixture
    async def shop(self, storage: tuple[str, Postgres | None]) -> AsyncIterator[StripeApp]:
        async with StripeServer() as server, stripe_app(*storage, server) as shop:
            yield shop

    async def test_card_is_attached_to_the_customer_and_pays_again(self, shop: StripeApp) -> None:
        user_id = new_id()

        saved = await save(shop, user_id, OK)

        assert (saved.brand, saved.last4, saved.exp_month, saved.exp_year) == (
            "visa", "4242", 12, 2034,
        )  # fmt: skip
        (customer,) = shop.stripe.customers.values()
        assert customer["metadata"] == {"markethall_user_id": str(user_id)}
        assert await pay(shop, user_id, saved.saved_payment_method_id) == "captured"
        assert await pay(shop, user_id, await token_of(shop, saved)) == "captured"
        assert len(shop.stripe.customers) == 1

    async def test_second_card_has_the_same_customer(self, shop: StripeApp) -> None:
        user_id = new_id()

        for _ in range(2):
            await save(shop, user_id, OK)

        assert len(await saved_by(shop, user_id)) == 2
        assert len(shop.stripe.customers) == 1

    async def test_card_of_another_user_is_not_charged(self, shop: StripeApp) -> None:
        saved = await save(shop, new_id(), OK)
        token = await token_of(shop, saved)
        requests = shop.stripe.requests.total()

        for method in (saved.saved_payment_method_id, token):
            with pytest.raises(UnknownPaymentMethod):
                await pay(shop, new_id(), method)

        assert shop.stripe.requests.total() == requests

    async def test_card_is_saved_after_the_authentication(self, shop: StripeApp) -> None:
        user_id, attempt = new_id(), attempt_without_key()
        payment = await shop.open(user_id=user_id)
        await shop.confirm(payment, NEEDS_ACTION, attempt, save_method=True)
        before = await saved_by(shop, user_id)

        shop.stripe.finish_action(shop.stripe.intent_of(attempt.id))
        await shop.deliver(shop.stripe.events[-1])

        assert before == []
        assert len(await saved_by(shop, user_id)) == 1

    @pytest.mark.parametrize("fault", [Fault.LOST_AFTER, Fault.SERVER_ERROR_AFTER])
    async def test_card_is_saved_after_a_lost_answer(self, shop: StripeApp, fault: Fault) -> None:
        user_id = new_id()
        shop.stripe.fail("confirm", fault)

        payment = await shop.confirm(await shop.open(user_id=user_id), OK, save_method=True)
        await shop.settle(payment)

        assert len(await saved_by(shop, user_id)) == 1
        await shop.assert_agrees(payment)

    async def test_declined_card_is_not_saved(self, shop: StripeApp) -> None:
        user_id = new_id()

        await shop.confirm(await shop.open(user_id=user_id), DECLINED, save_method=True)

        assert not await saved_by(shop, user_id)

    async def test_customer_is_created_once_although_the_answer_is_lost(
        self, shop: StripeApp
    ) -> None:
        user_id = new_id()
        payment = await shop.open(user_id=user_id)
        shop.stripe.fail("create_customer", Fault.LOST_AFTER)

        with pytest.raises(Unavailable):
            await shop.confirm(payment, OK, save_method=True)
        not_charged = await shop.current(payment)
        paid = await shop.confirm(payment, OK, save_method=True)

        assert not_charged.status is PaymentStatus.CREATED
        assert paid.status is PaymentStatus.CAPTURED
        assert len(shop.stripe.customers) == 1

    @pytest.mark.parametrize("is_known_to_stripe", [True, False])
    async def test_customer_that_was_deleted_at_stripe_is_replaced(
        self, shop: StripeApp, is_known_to_stripe: bool
    ) -> None:
        user_id = new_id()
        await save(shop, user_id, OK)
        (deleted,) = shop.stripe.customers
        shop.stripe.delete_customer(deleted)
        if not is_known_to_stripe:
            del shop.stripe.customers[deleted]

        saved = await save(shop, user_id, OK)
        await save(shop, user_id, OK)

        assert await pay(shop, user_id, saved.saved_payment_method_id) == "captured"
        (replacement,) = set(shop.stripe.customers) - {deleted}
        async with shop.container.database().read_session() as store:
            stored = await store.get_provider_customer(user_id, "stripe")
        assert stored
        assert stored.reference == replacement

    async def test_deleted_customer_is_replaced_once_by_concurrent_payments(
        self, shop: StripeApp
    ) -> None:
        user_id = new_id()
        await save(shop, user_id, OK)
        (deleted,) = shop.stripe.customers
        shop.stripe.delete_customer(deleted)

        await asyncio.gather(*(save(shop, user_id, OK) for _ in range(4)))

        assert len(shop.stripe.customers) == 2
        assert len(await saved_by(shop, user_id)) == 5

    async def test_nothing_is_charged_while_the_customer_cannot_be_read(
        self, shop: StripeApp
    ) -> None:
        user_id = new_id()
        await save(shop, user_id, OK)
        payment = await shop.open(user_id=user_id)
        shop.stripe.fail("get_customer", Fault.LOST_BEFORE)

        with pytest.raises(Unavailable):
            await shop.confirm(payment, OK, save_method=True)
        not_charged = await shop.current(payment)
        paid = await shop.confirm(payment, OK, save_method=True)

        assert not_charged.status is PaymentStatus.CREATED
        assert paid.status is PaymentStatus.CAPTURED
        assert len(shop.stripe.customers) == 1

    @pytest.mark.parametrize("fault", [Fault.LOST_BEFORE, Fault.LOST_AFTER])
    async def test_card_is_detached_although_the_answer_is_lost(
        self, shop: StripeApp, fault: Fault
    ) -> None:
        user_id = new_id()
        saved = await save(shop, user_id, OK)
        token = await token_of(shop, saved)
        shop.stripe.fail("detach", fault)

        await shop.payment_api.delete_saved_method(
            user_context(user_id), saved.saved_payment_method_id
        )
        await shop.run_periodic_jobs()

        assert shop.stripe.methods[token]["customer"] is None
        requests = shop.stripe.requests["detach"]
        shop.clock.advance(3600)
        await shop.run_periodic_jobs()
        assert shop.stripe.requests["detach"] == requests

    async def test_card_that_was_deleted_in_the_dashboard_is_declined(
        self, shop: StripeApp
    ) -> None:
        user_id = new_id()
        saved = await save(shop, user_id, OK)
        shop.stripe.methods[await token_of(shop, saved)]["customer"] = None

        assert await pay(shop, user_id, saved.saved_payment_method_id) == "failed"

    async def test_page_of_the_shop_can_save_a_card(self, shop: StripeApp) -> None:
        attempt = attempt_without_key()

        waiting = await shop.confirm(await shop.open(), "stripe", attempt, save_method=True)

        intent = shop.stripe.intent_of(attempt.id)
        assert waiting.status is PaymentStatus.REQUIRES_ACTION
        assert intent["customer"] in shop.stripe.customers
        assert intent["payment_method_options"] == {"card": {"setup_future_usage": "on_session"}}
