"""Webhooks are stored, then applied once, in any order of arrival."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from markethall.payments.contract import PaymentStatus
from markethall.payments.contract.errors import UnknownProvider, WebhookSignatureInvalid
from markethall.payments.domain.operation import Failed, Succeeded
from markethall.payments.gateway.sandbox_webhooks import MAX_WEBHOOK_BYTES, SIGNATURE_HEADER
from markethall.payments.ports import ProviderEvent, ProviderNews
from markethall.shared.kernel.errors import (
    BodyTooLarge,
    DomainError,
    MalformedRequest,
    ValidationFailed,
)
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.key_derivation import KeyPurpose, derive_key
from tests.card_numbers import CARD_NUMBERS
from tests.payments.conftest import (
    ANONYMOUS,
    SECRET,
    Killed,
    PaymentsApp,
    attempt_without_key,
    build_payments_app,
)
from tests.payments.forged_signatures import RANDOM_FORGERIES, crafted_headers, random_headers


def signed(payments_app: PaymentsApp, body: bytes) -> dict[str, str]:
    return {SIGNATURE_HEADER: payments_app.webhooks.compute_signature(body, payments_app.clock())}


def event_body(**changes: Any) -> bytes:
    event = {
        "event_id": "evt_1",
        "type": "charge.succeeded",
        "created": 0,
        "data": {"operation_id": str(new_id()), "reference": "ch_1"},
    }
    return json.dumps(event | changes).encode()


async def deliver(payments_app: PaymentsApp, headers: Mapping[str, str], body: bytes) -> bool:
    return (
        await payments_app.payment_api.receive_webhook(ANONYMOUS, "sandbox", headers, body)
    ).duplicate


async def test_events_with_ids_like_card_numbers_stay_two_events(payments_app: PaymentsApp) -> None:
    for event_id in (CARD_NUMBERS["Visa"], CARD_NUMBERS["Mastercard"]):
        body = event_body(event_id=event_id)
        for is_duplicate in (False, True):
            assert await deliver(payments_app, signed(payments_app, body), body) is is_duplicate


async def test_webhook_may_arrive_before_provider_response(payments_app: PaymentsApp) -> None:
    payment = await payments_app.confirm(await payments_app.open(), "sandbox_webhook_first")

    assert payment.status is PaymentStatus.CAPTURED
    assert await payments_app.charged() == await payments_app.posting_count() == 1
    assert await payments_app.event_types() == ["payment_captured"]


async def test_webhook_alone_settles_payment(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open()
    payments_app.gateway.after = Killed()

    with pytest.raises(Killed):
        await payments_app.confirm(payment, "sandbox_webhook_first")

    assert (await payments_app.current(payment)).status is PaymentStatus.CAPTURED
    await payments_app.reconcile()
    assert await payments_app.charged() == await payments_app.posting_count() == 1
    assert await payments_app.event_types() == ["payment_captured"]


async def test_webhook_settles_unknown_operation(payments_app: PaymentsApp) -> None:
    attempt = attempt_without_key()
    payment = await payments_app.confirm(
        await payments_app.open(), "sandbox_timeout_after", attempt
    )

    await payments_app.send(attempt.id, Succeeded("ch_1"))

    assert (await payments_app.current(payment)).status is PaymentStatus.CAPTURED
    await payments_app.reconcile()
    assert await payments_app.posting_count() == 1


async def test_duplicate_webhook_is_applied_once(payments_app: PaymentsApp) -> None:
    attempt = attempt_without_key()
    await payments_app.confirm(await payments_app.open(), "sandbox_timeout_after", attempt)

    first = await payments_app.send(attempt.id, Succeeded("ch_1"))
    second = await payments_app.send(attempt.id, Succeeded("ch_1"))

    assert (first, second) == (False, True)
    assert await payments_app.posting_count() == 1
    assert await payments_app.event_types() == ["payment_status_changed", "payment_captured"]


async def test_early_webhook_is_stored_as_pending_and_applied_later(
    payments_app: PaymentsApp,
) -> None:
    payment, attempt = await payments_app.open(), attempt_without_key()
    await payments_app.send(attempt.id, Succeeded("ch_early"))
    await payments_app.run_periodic_jobs()
    payments_app.gateway.after = Killed()
    with pytest.raises(Killed):
        await payments_app.confirm(payment, attempt=attempt)

    await payments_app.run_periodic_jobs()

    assert (await payments_app.current(payment)).status is PaymentStatus.CAPTURED
    assert await payments_app.posting_count() == 1


async def test_event_that_a_gateway_cannot_read_does_not_stop_the_others(
    payments_app: PaymentsApp,
) -> None:
    broken, attempt = attempt_without_key(), attempt_without_key()
    parse_news = payments_app.gateway.parse_news

    def fail_on_broken(event: ProviderEvent) -> ProviderNews:
        if event.operation_id == broken.id:
            raise KeyError("status")
        return parse_news(event)

    payments_app.gateway.parse_news = fail_on_broken  # type: ignore[method-assign]  # a defect
    for early in (broken, attempt):
        await payments_app.send(early.id, Succeeded("ch_early"))
        payment = await payments_app.open()
        payments_app.gateway.after = Killed()
        with pytest.raises(Killed):
            await payments_app.confirm(payment, attempt=early)

    await payments_app.run_periodic_jobs()
    duplicate = await payments_app.send(broken.id, Succeeded("ch_early"))

    assert (await payments_app.current(payment)).status is PaymentStatus.CAPTURED
    assert duplicate


async def test_late_webhook_changes_nothing(payments_app: PaymentsApp) -> None:
    attempt = attempt_without_key()
    payment = await payments_app.confirm(await payments_app.open(), "sandbox_declined", attempt)
    paid = await payments_app.confirm(payment)

    await payments_app.send(attempt.id, Failed("card_declined"))

    assert await payments_app.current(payment) == paid
    assert await payments_app.posting_count() == 1


async def test_unknown_webhook_type_is_stored(payments_app: PaymentsApp) -> None:
    body = event_body(type="payout.paid", data={"anything": [1, 2]})

    first = await deliver(payments_app, signed(payments_app, body), body)
    second = await deliver(payments_app, signed(payments_app, body), body)

    assert (first, second) == (False, True)


async def test_unknown_provider_is_rejected(payments_app: PaymentsApp) -> None:
    with pytest.raises(UnknownProvider) as error:
        await payments_app.payment_api.receive_webhook(ANONYMOUS, "stripes", {}, b"{}")

    assert error.value.details == {"provider": "stripes"}


@pytest.mark.parametrize(
    "header",
    [
        "",
        "v1=00",
        "t=1",
        "t=,v1=",
        "t=-1,v1=00",
        "t=99999999999,v1=00",
        "t=999999999999999999999999,v1=00",
        "t=1,t=2,v1=00",
        "t=\u0661,v1=00",
        "t=1763726400,v1=" + "é" * 64,
        "t=1763726400,v1=" + "0" * 64,
        "garbage" * 100,
    ],
)
async def test_a_forged_signature_is_rejected(payments_app: PaymentsApp, header: str) -> None:
    body = event_body()

    with pytest.raises(WebhookSignatureInvalid):
        await deliver(payments_app, {SIGNATURE_HEADER: header}, body)


async def test_crafted_signature_of_a_real_event_is_rejected(payments_app: PaymentsApp) -> None:
    payment, attempt = await payments_app.open(), attempt_without_key()
    waiting = await payments_app.confirm(payment, "sandbox_action_required", attempt)
    _, body = payments_app.webhooks.build_signed_event(
        attempt.id, Succeeded("ch_1"), payments_app.clock()
    )
    key = derive_key(SECRET, KeyPurpose.SANDBOX_WEBHOOK)
    now = int(payments_app.clock().timestamp())

    for name, header in crafted_headers(key, body, now).items():
        headers = {} if header is None else {SIGNATURE_HEADER: header}
        with pytest.raises(WebhookSignatureInvalid):
            await deliver(payments_app, headers, body)
        assert await payments_app.current(payment) == waiting, name

    assert await deliver(payments_app, signed(payments_app, body), body) is False


async def test_ten_thousand_random_signatures_are_rejected() -> None:
    payments_app = build_payments_app("memory", None)
    body, now = event_body(), int(payments_app.clock().timestamp())
    key = derive_key(SECRET, KeyPurpose.SANDBOX_WEBHOOK)

    accepted = 0
    for header in random_headers(key, body, now, RANDOM_FORGERIES):
        try:
            await deliver(payments_app, {SIGNATURE_HEADER: header}, body)
        except WebhookSignatureInvalid:
            continue
        accepted += 1

    assert accepted == 0


async def test_signature_is_bound_to_body(payments_app: PaymentsApp) -> None:
    headers = signed(payments_app, event_body())

    with pytest.raises(WebhookSignatureInvalid):
        await deliver(payments_app, headers, event_body(event_id="evt_2"))


@pytest.mark.parametrize("seconds", [-301, 302])
async def test_signature_expires_after_five_minutes(
    payments_app: PaymentsApp, seconds: int
) -> None:
    body = event_body()
    headers = signed(payments_app, body)
    payments_app.clock.advance(seconds)

    with pytest.raises(WebhookSignatureInvalid):
        await deliver(payments_app, headers, body)


async def test_one_good_signature_of_two_is_enough(payments_app: PaymentsApp) -> None:
    body = event_body()
    header = signed(payments_app, body)[SIGNATURE_HEADER].replace("v1=", "v1=00,v1=")

    assert await deliver(payments_app, {SIGNATURE_HEADER: header}, body) is False


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", MalformedRequest),
        (b"not json", MalformedRequest),
        (b"\xff\xfe", MalformedRequest),
        (b"[" * 5000, MalformedRequest),
        (b"[]", ValidationFailed),
        (b"{}", ValidationFailed),
        (event_body(event_id=""), ValidationFailed),
        (event_body(event_id=7), ValidationFailed),
        (event_body(event_id="x" * 300), ValidationFailed),
        (event_body(event_id="nul \x00"), ValidationFailed),
        (event_body(type="payout.paid", event_id=None), ValidationFailed),
        (event_body(data={"operation_id": "7"}), ValidationFailed),
        (event_body(data=None), ValidationFailed),
        (b'{"event_id": "\\ud800", "type": "x"}', MalformedRequest),
        (b" " * (MAX_WEBHOOK_BYTES + 1), BodyTooLarge),
    ],
)
async def test_malformed_webhook_is_rejected(
    payments_app: PaymentsApp, body: bytes, error: type[DomainError]
) -> None:
    with pytest.raises(error):
        await deliver(payments_app, signed(payments_app, body), body)
