"""Pending webhook events do not delay each other, and end although no operation matches them."""

from datetime import timedelta
from typing import Final
from uuid import UUID

from structlog.testing import capture_logs

from markethall.payments.contract import PaymentStatus
from markethall.payments.contract.api import PaymentView
from markethall.payments.domain.operation import Succeeded
from markethall.payments.ports import PaymentGatewayTimeout, ProviderEvent, ProviderNews
from tests.payments.conftest import PaymentsApp, attempt_without_key

BATCH_SIZE: Final = 100
WEEK: Final = timedelta(days=7).total_seconds()


async def store_events(payments_app: PaymentsApp, provider: str, operation_id: UUID) -> None:
    """Store a whole batch of pending events about one operation."""
    async with payments_app.container.database().transaction() as store:
        for number in range(BATCH_SIZE):
            event = ProviderEvent(provider, f"stuck_{number}", "any", operation_id, "{}")
            await store.store_event(event, "pending", payments_app.clock())


async def start_action(payments_app: PaymentsApp) -> tuple[PaymentView, UUID]:
    attempt = attempt_without_key()
    payment = await payments_app.open()
    return await payments_app.confirm(payment, "sandbox_action_required", attempt), attempt.id


async def send_unanswered(payments_app: PaymentsApp, operation_id: UUID) -> None:
    """Send an event that stays pending, because the provider does not answer."""
    payments_app.gateway.before = PaymentGatewayTimeout()
    await payments_app.send(operation_id, Succeeded("ch_1"))


async def unmatched_counts(payments_app: PaymentsApp) -> list[int]:
    with capture_logs() as lines:
        await payments_app.run_periodic_jobs()
    return [line["count"] for line in lines if line["event"] == "webhook.unmatched"]


async def test_events_of_a_disabled_provider_do_not_delay_others(payments_app: PaymentsApp) -> None:
    payment, operation_id = await start_action(payments_app)
    await store_events(payments_app, "disabled", operation_id)
    await send_unanswered(payments_app, operation_id)

    await payments_app.run_periodic_jobs()

    assert (await payments_app.current(payment)).status is PaymentStatus.CAPTURED


async def test_events_without_result_do_not_delay_others(payments_app: PaymentsApp) -> None:
    _, broken_id = await start_action(payments_app)
    payment, operation_id = await start_action(payments_app)
    parse_news = payments_app.gateway.parse_news
    looked_at = []

    def fail_on_broken(event: ProviderEvent) -> ProviderNews:
        looked_at.append(event.event_id)
        if event.operation_id == broken_id:
            raise KeyError("status")
        return parse_news(event)

    payments_app.gateway.parse_news = fail_on_broken  # type: ignore[method-assign]  # a defect
    await store_events(payments_app, "sandbox", broken_id)
    await send_unanswered(payments_app, operation_id)

    await payments_app.run_periodic_jobs()
    await payments_app.run_periodic_jobs()
    settled = await payments_app.current(payment)
    looked_at.clear()
    payments_app.clock.advance(6)
    await payments_app.run_periodic_jobs()

    assert settled.status is PaymentStatus.CAPTURED
    assert len(looked_at) == BATCH_SIZE


async def test_event_without_operation_is_ignored_after_a_week(payments_app: PaymentsApp) -> None:
    await payments_app.send(attempt_without_key().id, Succeeded("ch_of_another_shop"))
    payments_app.clock.advance(WEEK - 60)
    before = await unmatched_counts(payments_app)
    payments_app.clock.advance(120)

    after = await unmatched_counts(payments_app)

    assert (before, after) == ([], [1])
    assert await unmatched_counts(payments_app) == []


async def test_event_with_operation_is_applied_after_a_week(payments_app: PaymentsApp) -> None:
    payment, operation_id = await start_action(payments_app)
    await send_unanswered(payments_app, operation_id)
    payments_app.clock.advance(WEEK + 60)

    assert await unmatched_counts(payments_app) == []
    assert (await payments_app.current(payment)).status is PaymentStatus.CAPTURED


async def test_delay_grows_with_age_of_event_to_ten_minutes(payments_app: PaymentsApp) -> None:
    payment, operation_id = await start_action(payments_app)
    await send_unanswered(payments_app, operation_id)
    payments_app.clock.advance(WEEK)
    payments_app.gateway.before = PaymentGatewayTimeout()
    await payments_app.run_periodic_jobs()

    payments_app.clock.advance(590)
    await payments_app.run_periodic_jobs()
    waiting = await payments_app.current(payment)
    payments_app.clock.advance(20)
    await payments_app.run_periodic_jobs()

    assert waiting.status is not PaymentStatus.CAPTURED
    assert (await payments_app.current(payment)).status is PaymentStatus.CAPTURED
