"""What the provider is promised: stored, then applied, once, in any order."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from markethall.payments.contract import (
    PaymentStatus,
    UnknownProvider,
    WebhookSignatureInvalid,
)
from markethall.payments.domain import Failed, Succeeded
from markethall.payments.gateway.sandbox_webhooks import LIMIT, SIGNATURE
from markethall.shared.errors import Invalid, Malformed, Refusal, TooLarge
from markethall.shared.ids import new_id
from tests.payments.conftest import ANYBODY, Killed, Stall, unkeyed


def signed(stall: Stall, body: bytes) -> dict[str, str]:
    return {SIGNATURE: stall.webhooks.signature(body, stall.clock())}


def news(**changes: Any) -> bytes:
    event = {
        "event_id": "evt_1",
        "type": "charge.succeeded",
        "created": 0,
        "data": {"operation_id": str(new_id()), "reference": "ch_1"},
    }
    return json.dumps(event | changes).encode()


async def deliver(stall: Stall, headers: Mapping[str, str], body: bytes) -> bool:
    return (await stall.desk.webhook(ANYBODY, "sandbox", headers, body)).duplicate


async def test_the_webhook_may_come_before_the_answer(stall: Stall) -> None:
    payment = await stall.confirm(await stall.open(), "sandbox_webhook_first")

    assert payment.status is PaymentStatus.CAPTURED
    assert await stall.charged() == await stall.posting_count() == 1
    assert await stall.event_types() == ["payment_captured"]


async def test_the_webhook_may_be_all_that_comes(stall: Stall) -> None:
    payment = await stall.open()
    stall.wire.after = Killed()

    with pytest.raises(Killed):
        await stall.confirm(payment, "sandbox_webhook_first")

    assert (await stall.now(payment)).status is PaymentStatus.CAPTURED
    await stall.reconcile()
    assert await stall.charged() == await stall.posting_count() == 1
    assert await stall.event_types() == ["payment_captured"]


async def test_a_webhook_settles_what_was_unknown(stall: Stall) -> None:
    attempt = unkeyed()
    payment = await stall.confirm(await stall.open(), "sandbox_timeout_after", attempt)

    await stall.send(attempt.id, Succeeded("ch_1"))

    assert (await stall.now(payment)).status is PaymentStatus.CAPTURED
    await stall.reconcile()
    assert await stall.posting_count() == 1


async def test_a_doubled_webhook_counts_once(stall: Stall) -> None:
    attempt = unkeyed()
    await stall.confirm(await stall.open(), "sandbox_timeout_after", attempt)

    first = await stall.send(attempt.id, Succeeded("ch_1"))
    second = await stall.send(attempt.id, Succeeded("ch_1"))

    assert (first, second) == (False, True)
    assert await stall.posting_count() == 1
    assert await stall.event_types() == ["payment_captured"]


async def test_an_early_webhook_is_parked_and_applied_later(stall: Stall) -> None:
    payment, attempt = await stall.open(), unkeyed()
    await stall.send(attempt.id, Succeeded("ch_early"))
    await stall.sweep()
    stall.wire.after = Killed()
    with pytest.raises(Killed):
        await stall.confirm(payment, attempt=attempt)

    await stall.sweep()

    assert (await stall.now(payment)).status is PaymentStatus.CAPTURED
    assert await stall.posting_count() == 1


async def test_news_that_comes_too_late_changes_nothing(stall: Stall) -> None:
    attempt = unkeyed()
    payment = await stall.confirm(await stall.open(), "sandbox_declined", attempt)
    paid = await stall.confirm(payment)

    await stall.send(attempt.id, Failed("card_declined"))

    assert await stall.now(payment) == paid
    assert await stall.posting_count() == 1


async def test_a_type_that_nobody_knows_is_stored_all_the_same(stall: Stall) -> None:
    body = news(type="payout.paid", data={"anything": [1, 2]})

    first = await deliver(stall, signed(stall, body), body)
    second = await deliver(stall, signed(stall, body), body)

    assert (first, second) == (False, True)


async def test_only_the_known_provider_is_heard(stall: Stall) -> None:
    with pytest.raises(UnknownProvider) as refusal:
        await stall.desk.webhook(ANYBODY, "stripes", {}, b"{}")

    assert refusal.value.details == {"provider": "stripes"}


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
async def test_a_forged_signature_is_refused(stall: Stall, header: str) -> None:
    body = news()

    with pytest.raises(WebhookSignatureInvalid):
        await deliver(stall, {SIGNATURE: header}, body)


async def test_a_signature_is_good_for_its_own_bytes_only(stall: Stall) -> None:
    headers = signed(stall, news())

    with pytest.raises(WebhookSignatureInvalid):
        await deliver(stall, headers, news(event_id="evt_2"))


@pytest.mark.parametrize("seconds", [-301, 302])
async def test_a_signature_is_good_for_five_minutes(stall: Stall, seconds: int) -> None:
    body = news()
    headers = signed(stall, body)
    stall.clock.turn(seconds)

    with pytest.raises(WebhookSignatureInvalid):
        await deliver(stall, headers, body)


async def test_one_good_signature_of_two_is_enough(stall: Stall) -> None:
    body = news()
    header = signed(stall, body)[SIGNATURE].replace("v1=", "v1=00,v1=")

    assert await deliver(stall, {SIGNATURE: header}, body) is False


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (b"", Malformed),
        (b"not json", Malformed),
        (b"\xff\xfe", Malformed),
        (b"[" * 5000, Malformed),
        (b"[]", Invalid),
        (b"{}", Invalid),
        (news(event_id=""), Invalid),
        (news(event_id=7), Invalid),
        (news(event_id="x" * 300), Invalid),
        (news(event_id="nul \x00"), Invalid),
        (news(type="payout.paid", event_id=None), Invalid),
        (news(data={"operation_id": "7"}), Invalid),
        (news(data=None), Invalid),
        (b'{"event_id": "\\ud800", "type": "x"}', Malformed),
        (b" " * (LIMIT + 1), TooLarge),
    ],
)
async def test_junk_is_refused_clearly(stall: Stall, body: bytes, refusal: type[Refusal]) -> None:
    with pytest.raises(refusal):
        await deliver(stall, signed(stall, body), body)
