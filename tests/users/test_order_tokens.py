"""Tokens of one order, on each storage and over HTTP."""

import pytest

from markethall.shared.kernel.ids import new_id
from markethall.users.contract import (
    BadGuestToken,
    ChangeUser,
    IssueOrderToken,
    UserInactive,
    UserView,
)
from tests.users.conftest import ANONYMOUS, UsersApp, attempt_without_key


async def disable(users_app: UsersApp, user: UserView) -> None:
    change = ChangeUser(is_active=False)
    await users_app.accounts.change_user(ANONYMOUS, user.user_id, change, {user.version})


async def test_token_is_for_the_order_only_and_expires(users_app: UsersApp) -> None:
    user = await users_app.register("ada")
    command = IssueOrderToken(order_id=new_id(), owner_id=user.user_id)

    issued = await users_app.users.issue_order_token(ANONYMOUS, command)

    actor = users_app.verifier.verify(issued.order_token)
    assert (actor.order_id, actor.user_id, actor.roles) == (command.order_id, None, ())
    assert issued.expires_in == 3600
    assert issued.order_token not in repr(issued)


async def test_orders_outlive_their_guests(users_app: UsersApp) -> None:
    guest = await users_app.container.guests().create_guest(ANONYMOUS)

    for owner_id in (guest.guest_id, new_id()):
        command = IssueOrderToken(order_id=new_id(), owner_id=owner_id)
        issued = await users_app.users.issue_order_token(ANONYMOUS, command)

        assert users_app.verifier.verify(issued.order_token).order_id == command.order_id


async def test_disabled_user_gets_no_token_of_own_or_claimed_orders(users_app: UsersApp) -> None:
    user, guests = await users_app.register("ada"), users_app.container.guests()
    guest = await guests.create_guest(ANONYMOUS)
    ctx = await users_app.sign_in_context("ada")
    await guests.claim_guest(ctx, guest.access_token, attempt_without_key())
    await disable(users_app, user)

    for owner_id in (user.user_id, guest.guest_id):
        command = IssueOrderToken(order_id=new_id(), owner_id=owner_id)
        with pytest.raises(UserInactive) as refused:
            await users_app.users.issue_order_token(ANONYMOUS, command)

        assert refused.value.details == {"user_id": str(user.user_id)}


async def test_order_token_is_no_token_of_a_guest(users_app: UsersApp) -> None:
    guests = users_app.container.guests()
    guest = await guests.create_guest(ANONYMOUS)
    await users_app.register("ada")
    ctx = await users_app.sign_in_context("ada")
    command = IssueOrderToken(order_id=guest.guest_id, owner_id=guest.guest_id)
    issued = await users_app.users.issue_order_token(ANONYMOUS, command)

    with pytest.raises(BadGuestToken):
        await guests.claim_guest(ctx, issued.order_token, attempt_without_key())
