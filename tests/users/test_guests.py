"""Guests and their claims, on each storage."""

import asyncio
from datetime import timedelta

import pytest

from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.ids import new_id
from markethall.shared.security.passwords import Passwords
from markethall.users.contract import (
    BadGuestToken,
    GuestAlreadyClaimed,
    GuestClaimed,
    GuestClaimView,
    GuestTokens,
    Register,
    UserInactive,
    UserNotFound,
    UserView,
)
from markethall.users.contract.errors import BadRefreshToken
from markethall.users.domain.session import REFRESH_GRACE_PERIOD
from tests.users.conftest import (
    ANONYMOUS,
    PASSWORD,
    UsersApp,
    attempt_without_key,
    build_users_app,
)

RETENTION = timedelta(days=90)


async def create_guest(users_app: UsersApp) -> GuestTokens:
    return await users_app.container.guests().create_guest(ANONYMOUS)


async def claim(users_app: UsersApp, ctx: CallContext, token: str) -> GuestClaimView:
    return await users_app.container.guests().claim_guest(ctx, token, attempt_without_key())


async def register_with(users_app: UsersApp, name: str, guest_token: str) -> UserView:
    command = Register(
        username=name, email=f"{name}@example.com", password=PASSWORD, guest_token=guest_token
    )
    return await users_app.accounts.register(ANONYMOUS, command, attempt_without_key())


async def published_claims(users_app: UsersApp) -> list[GuestClaimed]:
    outbox = users_app.container.persistence().outbox
    async with outbox.acquire_leadership() as leader:
        assert leader is not None
        envelopes = await leader.get_unrelayed(100)
    events = [envelope.decode() for envelope in envelopes]
    return [event for event in events if isinstance(event, GuestClaimed)]


# Guests


async def test_guest_gets_tokens_with_the_scopes_of_a_buyer(users_app: UsersApp) -> None:
    guest = await create_guest(users_app)

    actor = users_app.actor(guest)
    assert (actor.user_id, actor.is_guest, actor.roles) == (guest.guest_id, True, ())
    assert guest.scope == "orders payments" == " ".join(sorted(actor.scopes))
    assert actor.audit_name == f"guest:{guest.guest_id}"


async def test_token_of_a_user_is_no_token_of_a_guest(users_app: UsersApp) -> None:
    await users_app.register("ada")

    assert (await users_app.sign_in_context("ada")).actor.is_guest is False


async def test_guest_is_a_customer_of_other_contexts_but_no_user(users_app: UsersApp) -> None:
    guest = await create_guest(users_app)

    customer = await users_app.users.get_active_customer(ANONYMOUS, guest.guest_id)

    assert (customer.user_id, customer.is_guest, customer.email) == (guest.guest_id, True, "")
    assert await users_app.accounts.count() == 0
    assert await users_app.container.guests().count_guests() == 1
    with pytest.raises(UserNotFound):
        await users_app.users.get_active_customer(ANONYMOUS, new_id())


async def test_guest_refreshes_tokens_with_reuse_detection(users_app: UsersApp) -> None:
    guest = await create_guest(users_app)

    pair = await users_app.sessions.refresh(ANONYMOUS, guest.refresh_token)
    assert users_app.actor(pair).is_guest
    assert users_app.actor(pair).user_id == guest.guest_id
    assert pair.scope == "orders payments"
    users_app.clock.advance(seconds=REFRESH_GRACE_PERIOD.total_seconds() + 1)
    for token in (guest.refresh_token, pair.refresh_token):
        with pytest.raises(BadRefreshToken):
            await users_app.sessions.refresh(ANONYMOUS, token)


async def test_guest_revokes_its_tokens(users_app: UsersApp) -> None:
    guest = await create_guest(users_app)

    await users_app.sessions.revoke(ANONYMOUS, guest.refresh_token)

    with pytest.raises(BadRefreshToken):
        await users_app.sessions.refresh(ANONYMOUS, guest.refresh_token)


async def test_each_refresh_extends_the_session_of_a_guest(users_app: UsersApp) -> None:
    pair = await create_guest(users_app)
    token = pair.refresh_token

    for _ in range(3):
        users_app.clock.advance(days=RETENTION.days - 1)
        token = (await users_app.sessions.refresh(ANONYMOUS, token)).refresh_token
    users_app.clock.advance(days=RETENTION.days + 1)

    with pytest.raises(BadRefreshToken):
        await users_app.sessions.refresh(ANONYMOUS, token)


async def test_purge_deletes_guests_without_a_refresh_in_the_retention(
    users_app: UsersApp,
) -> None:
    unused = await create_guest(users_app)
    used = await create_guest(users_app)
    users_app.clock.advance(days=RETENTION.days - 1)
    await users_app.sessions.refresh(ANONYMOUS, used.refresh_token)
    users_app.clock.advance(days=2)

    await users_app.container.session_purge_job().run_once()

    assert await users_app.container.guests().count_guests() == 1
    await users_app.users.get_active_customer(ANONYMOUS, used.guest_id)
    with pytest.raises(UserNotFound):
        await users_app.users.get_active_customer(ANONYMOUS, unused.guest_id)


# Claims


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_user_claims_a_guest_by_either_token(users_app: UsersApp, kind: str) -> None:
    guest = await create_guest(users_app)
    user = await users_app.register("ada")
    ctx = await users_app.sign_in_context("ada")

    view = await claim(users_app, ctx, getattr(guest, kind))

    assert (view.guest_id, view.user_id) == (guest.guest_id, user.user_id)
    event = GuestClaimed(guest_id=guest.guest_id, user_id=user.user_id)
    assert await published_claims(users_app) == [event]
    with pytest.raises(BadRefreshToken):
        await users_app.sessions.refresh(ANONYMOUS, guest.refresh_token)
    with pytest.raises(UserInactive):
        await users_app.users.get_active_customer(ANONYMOUS, guest.guest_id)


async def test_repeated_claim_changes_nothing(users_app: UsersApp) -> None:
    guest = await create_guest(users_app)
    await users_app.register("ada")
    ctx = await users_app.sign_in_context("ada")

    first = await claim(users_app, ctx, guest.access_token)
    again = [await claim(users_app, ctx, t) for t in (guest.access_token, guest.refresh_token)]

    assert again == [first, first]
    assert len(await published_claims(users_app)) == 1


async def test_second_user_cannot_claim_the_guest(users_app: UsersApp) -> None:
    guest = await create_guest(users_app)
    for name in ("ada", "ben"):
        await users_app.register(name)
    await claim(users_app, await users_app.sign_in_context("ada"), guest.refresh_token)

    with pytest.raises(GuestAlreadyClaimed):
        await claim(users_app, await users_app.sign_in_context("ben"), guest.refresh_token)
    with pytest.raises(GuestAlreadyClaimed):
        await register_with(users_app, "carl", guest.access_token)
    assert await users_app.accounts.count() == 2


async def test_one_of_many_users_claims_the_guest(users_app: UsersApp) -> None:
    guest = await create_guest(users_app)
    contexts = []
    for name in ("ada", "ben", "carl", "dora"):
        await users_app.register(name)
        contexts.append(await users_app.sign_in_context(name))

    results = await asyncio.gather(
        *(
            claim(users_app, ctx, token)
            for ctx in contexts
            for token in (guest.access_token, guest.refresh_token)
        ),
        return_exceptions=True,
    )

    views = [each for each in results if isinstance(each, GuestClaimView)]
    errors = [each for each in results if not isinstance(each, GuestClaimView)]
    assert len(views) == 2
    assert views[0] == views[1]
    assert all(isinstance(error, GuestAlreadyClaimed) for error in errors)
    assert len(await published_claims(users_app)) == 1


async def test_claims_and_refreshes_at_once_end_the_session(users_app: UsersApp) -> None:
    await users_app.register("ada")
    ctx = await users_app.sign_in_context("ada")
    for _ in range(20):
        guest = await create_guest(users_app)

        results = await asyncio.gather(
            claim(users_app, ctx, guest.refresh_token),
            users_app.sessions.refresh(ANONYMOUS, guest.refresh_token),
            claim(users_app, ctx, guest.access_token),
            users_app.sessions.refresh(ANONYMOUS, guest.refresh_token),
            return_exceptions=True,
        )

        assert isinstance(results[0], GuestClaimView)
        assert isinstance(results[2], GuestClaimView)
        for refreshed in (results[1], results[3]):
            if isinstance(refreshed, BaseException):
                assert isinstance(refreshed, BadRefreshToken)
            else:
                with pytest.raises(BadRefreshToken):
                    await users_app.sessions.refresh(ANONYMOUS, refreshed.refresh_token)


async def test_tokens_that_are_not_valid_tokens_of_a_guest_are_refused(
    users_app: UsersApp,
) -> None:
    await users_app.register("ada")
    pair, ctx = await users_app.sign_in("ada"), await users_app.sign_in_context("ada")
    revoked = await create_guest(users_app)
    await users_app.sessions.revoke(ANONYMOUS, revoked.refresh_token)
    forged = revoked.access_token[:-6] + "AAAAAA"

    for token in (
        pair.access_token,
        pair.refresh_token,
        revoked.access_token,
        revoked.refresh_token,
        forged,
        "a.b.c",
        "no token",
        "ü",
        "\ud800",
    ):
        with pytest.raises(BadGuestToken):
            await claim(users_app, ctx, token)
        with pytest.raises(BadGuestToken):
            await register_with(users_app, "ben", token)
    assert await users_app.accounts.count() == 1
    assert await published_claims(users_app) == []


async def test_tokens_of_another_deployment_are_refused(
    users_app: UsersApp, passwords: Passwords
) -> None:
    """The other deployment has the same issuer and audience, but its own keys and guests."""
    guest = await create_guest(build_users_app("memory", passwords))
    await users_app.register("ada")
    ctx = await users_app.sign_in_context("ada")

    for token in (guest.access_token, guest.refresh_token):
        with pytest.raises(BadGuestToken):
            await claim(users_app, ctx, token)
        with pytest.raises(BadGuestToken):
            await register_with(users_app, "ben", token)
    assert await users_app.accounts.count() == 1


async def test_expired_and_exchanged_tokens_of_a_guest_are_refused(users_app: UsersApp) -> None:
    guest = await create_guest(users_app)
    await users_app.register("ada")
    ctx = await users_app.sign_in_context("ada")
    current = await users_app.sessions.refresh(ANONYMOUS, guest.refresh_token)
    users_app.clock.advance(minutes=16)

    for token in (guest.access_token, current.access_token, guest.refresh_token):
        with pytest.raises(BadGuestToken):
            await claim(users_app, ctx, token)

    assert (await claim(users_app, ctx, current.refresh_token)).guest_id == guest.guest_id


async def test_disabled_user_cannot_claim(users_app: UsersApp) -> None:
    guest = await create_guest(users_app)
    await users_app.register("ada")
    ctx = await users_app.sign_in_context("ada")
    async with users_app.container.database().transaction() as store:
        user = await store.get_user_for_update(ctx.user_id)
        assert user is not None
        user.update_access(None, is_active=False)
        await store.save_user(user)

    with pytest.raises(UserInactive):
        await claim(users_app, ctx, guest.access_token)


async def test_registration_claims_the_guest(users_app: UsersApp) -> None:
    guest = await create_guest(users_app)

    user = await register_with(users_app, "ada", guest.access_token)

    event = GuestClaimed(guest_id=guest.guest_id, user_id=user.user_id)
    assert await published_claims(users_app) == [event]
    with pytest.raises(BadRefreshToken):
        await users_app.sessions.refresh(ANONYMOUS, guest.refresh_token)
