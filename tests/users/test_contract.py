"""The contract suite of the `users` context. It runs on each storage."""

from asyncio import gather
from collections import Counter
from collections.abc import Awaitable
from datetime import timedelta

import pytest

from markethall.shared.http.idempotent_routes import IDEMPOTENCY_RETENTION_DEFAULT
from markethall.shared.idempotency.records import IdempotencyRecord, IdempotentCommand
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.errors import (
    DomainError,
    PreconditionFailed,
    Unauthenticated,
    ValidationFailed,
)
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import CursorInvalid
from markethall.shared.kernel.scopes import PROFILE, SCOPES_BY_ROLE, USERS_MANAGE
from markethall.shared.observability.metrics import STATEMENTS
from markethall.users.contract import (
    ChangeProfile,
    ChangeUser,
    Register,
    Role,
    TokenPair,
    UserInactive,
    UserNotFound,
)
from markethall.users.contract.errors import (
    BadCredentials,
    BadRefreshToken,
    EmailTaken,
    LastAdmin,
    PasswordUnacceptable,
    UsernameTaken,
)
from tests.users.conftest import ANONYMOUS, PASSWORD, UsersApp, attempt_without_key, to_response

MANAGER = CallContext(actor=Actor(scopes=frozenset({USERS_MANAGE})), request_id="test")
OTHER_PASSWORD = "tr0ubador and three more words"


def register_command(username: str, email: str, **more: object) -> Register:
    return Register.model_validate(
        {"username": username, "email": email, "password": PASSWORD, **more}
    )


# Registration


async def test_new_customer_is_active_with_customer_role(users_app: UsersApp) -> None:
    command = register_command("Ada", "Ada@Example.COM", full_name="Ada Lovelace", tags=("vip",))

    account = await users_app.accounts.register(ANONYMOUS, command, attempt_without_key())

    assert account.username == "Ada"
    assert account.email == "Ada@example.com"
    assert account.full_name == "Ada Lovelace"
    assert account.tags == ("vip",)
    assert account.roles == (Role.CUSTOMER,)
    assert account.is_active
    assert not account.email_verified
    assert account.version == 1
    assert account.signup_date.utcoffset() == timedelta()


async def test_username_is_unique_ignoring_case(users_app: UsersApp) -> None:
    await users_app.register("ada")

    with pytest.raises(UsernameTaken) as error:
        await users_app.accounts.register(
            ANONYMOUS, register_command("ADA", "other@example.com"), attempt_without_key()
        )

    assert error.value.details == {"username": "ADA"}


@pytest.mark.parametrize(
    "same",
    ["ADA@example.com", "ada@EXAMPLE.com", "\uff41da@example.com"],  # full-width a
)
async def test_email_is_unique_ignoring_case_and_unicode_form(
    users_app: UsersApp, same: str
) -> None:
    await users_app.register("ada")

    with pytest.raises(EmailTaken) as error:
        await users_app.accounts.register(
            ANONYMOUS, register_command("second", same), attempt_without_key()
        )

    assert same not in repr(error.value)


@pytest.mark.parametrize(
    "name",
    ["ad", "a" * 51, "ada l", "ada@x", "\u0430da", "ada\u200b", "\uff41da", "ada\n", "ad\x00a", ""],
)
async def test_confusable_username_is_rejected(users_app: UsersApp, name: str) -> None:
    with pytest.raises(ValidationFailed) as error:
        await users_app.accounts.register(
            ANONYMOUS, register_command(name, "ada@example.com"), attempt_without_key()
        )

    assert error.value.details["errors"][0]["field"] == "/username"


@pytest.mark.parametrize(
    "email", ["", "ada", "ada@", "@example.com", "a@b@c.de", "ada@exa mple.de"]
)
async def test_invalid_email_is_rejected(users_app: UsersApp, email: str) -> None:
    with pytest.raises(ValidationFailed) as error:
        await users_app.accounts.register(
            ANONYMOUS, register_command("ada", email), attempt_without_key()
        )

    assert error.value.details["errors"][0]["field"] == "/email"


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("seven77", "too_short"),
        ("x" * 257, "too_long"),
        ("Password123", "too_common"),
        ("Ada.Lovelace", "personal"),
        ("countess@example.com", "personal"),
    ],
)
async def test_a_weak_password_is_rejected(users_app: UsersApp, password: str, reason: str) -> None:
    command = register_command("ada.lovelace", "countess@example.com", password=password)

    with pytest.raises(PasswordUnacceptable) as error:
        await users_app.accounts.register(ANONYMOUS, command, attempt_without_key())

    assert error.value.details == {"reason": reason}
    assert await users_app.accounts.count() == 0


async def test_one_of_twenty_concurrent_registrations_gets_username(users_app: UsersApp) -> None:
    names = [
        "".join(c.upper() if n >> i & 1 else c for i, c in enumerate("racer")) for n in range(20)
    ]

    results = await gather(
        *(
            users_app.accounts.register(
                ANONYMOUS, register_command(name, f"{i}@example.com"), attempt_without_key()
            )
            for i, name in enumerate(names)
        ),
        return_exceptions=True,
    )

    assert Counter(type(result).__name__ for result in results) == {
        "UserView": 1,
        "UsernameTaken": 19,
    }
    assert await users_app.accounts.count() == 1


async def test_one_of_twenty_concurrent_registrations_gets_email(users_app: UsersApp) -> None:
    results = await gather(
        *(
            users_app.accounts.register(
                ANONYMOUS, register_command(f"racer{i}", "Racer@example.com"), attempt_without_key()
            )
            for i in range(20)
        ),
        return_exceptions=True,
    )

    assert Counter(type(result).__name__ for result in results) == {"UserView": 1, "EmailTaken": 19}


async def test_registration_is_idempotent(users_app: UsersApp) -> None:
    attempt = IdempotentCommand("", new_id(), IDEMPOTENCY_RETENTION_DEFAULT, to_response)
    first = await users_app.accounts.register(
        ANONYMOUS, register_command("ada", "ada@example.com"), attempt
    )

    again = await users_app.accounts.register(
        ANONYMOUS, register_command("ada", "ada@example.com"), attempt
    )

    assert again == first
    assert first.user_id == attempt.id
    assert await users_app.accounts.count() == 1


async def test_response_is_stored_under_key(users_app: UsersApp) -> None:
    idempotency_store = users_app.container.persistence().idempotency_store
    now = users_app.clock()
    record = IdempotencyRecord(scope="key", request_hash="hash", id=new_id(), lease_until=now)
    await idempotency_store.claim(record, now + IDEMPOTENCY_RETENTION_DEFAULT)

    attempt = IdempotentCommand("key", record.id, IDEMPOTENCY_RETENTION_DEFAULT, to_response)
    account = await users_app.accounts.register(
        ANONYMOUS, register_command("ada", "ada@example.com"), attempt
    )

    stored = await idempotency_store.claim(record, now + IDEMPOTENCY_RETENTION_DEFAULT)
    assert stored is not None
    assert stored.response == to_response(account)
    assert PASSWORD not in stored.model_dump_json()


# Sign-in


@pytest.mark.parametrize("name", ["ada", "ADA", "ada@example.com", "Ada@EXAMPLE.com"])
async def test_login_accepts_username_or_email_in_any_case(users_app: UsersApp, name: str) -> None:
    account = await users_app.register("ada")

    pair = await users_app.sign_in(name)

    actor = users_app.actor(pair)
    assert actor.user_id == account.user_id
    assert actor.roles == ("customer",)
    assert actor.scopes == SCOPES_BY_ROLE["customer"] | {PROFILE}
    assert pair.scope == " ".join(sorted(actor.scopes))
    assert pair.expires_in == 900


async def test_login_failures_are_indistinguishable(users_app: UsersApp) -> None:
    await users_app.register("ada")
    disabled = await users_app.register("bob")
    await users_app.accounts.change_user(
        ANONYMOUS, disabled.user_id, ChangeUser(is_active=False), {1}
    )

    errors = await gather(
        users_app.sign_in("ada", OTHER_PASSWORD),
        users_app.sign_in("unknown"),
        users_app.sign_in("unknown@example.com"),
        users_app.sign_in("no body at all@@"),
        users_app.sign_in("bob"),
        return_exceptions=True,
    )

    assert all(isinstance(error, BadCredentials) for error in errors)
    assert len({repr(error) for error in errors}) == 1


async def test_passwords_that_differ_only_after_byte_72_are_different(users_app: UsersApp) -> None:
    stem = "é" * 60
    await users_app.register("ada", stem + "one")

    with pytest.raises(BadCredentials):
        await users_app.sign_in("ada", stem + "two")

    assert await users_app.sign_in("ada", stem + "one")


async def test_no_secret_is_in_a_repr(users_app: UsersApp) -> None:
    await users_app.register("ada")

    pair = await users_app.sign_in("ada")

    assert pair.access_token not in repr(pair)
    assert pair.refresh_token not in repr(pair)
    assert PASSWORD not in repr(register_command("ada", "ada@example.com"))


# Refresh tokens


async def test_refresh_rotates_token_in_same_session(users_app: UsersApp) -> None:
    account = await users_app.register("ada")
    first = await users_app.sign_in("ada")

    second = await users_app.sessions.refresh(ANONYMOUS, first.refresh_token)
    third = await users_app.sessions.refresh(ANONYMOUS, second.refresh_token)

    assert len({first.refresh_token, second.refresh_token, third.refresh_token}) == 3
    assert users_app.actor(third).user_id == account.user_id
    assert users_app.actor(third).session_id == users_app.actor(first).session_id


async def test_reused_refresh_token_revokes_session(users_app: UsersApp) -> None:
    await users_app.register("ada")
    first = await users_app.sign_in("ada")
    second = await users_app.sessions.refresh(ANONYMOUS, first.refresh_token)
    users_app.clock.advance(seconds=11)

    with pytest.raises(BadRefreshToken):
        await users_app.sessions.refresh(ANONYMOUS, first.refresh_token)
    with pytest.raises(BadRefreshToken):
        await users_app.sessions.refresh(ANONYMOUS, second.refresh_token)


async def test_old_refresh_token_revokes_session(users_app: UsersApp) -> None:
    await users_app.register("ada")
    first = await users_app.sign_in("ada")
    latest = first
    for _ in range(3):
        latest = await users_app.sessions.refresh(ANONYMOUS, latest.refresh_token)
        users_app.clock.advance(seconds=4)

    with pytest.raises(BadRefreshToken):
        await users_app.sessions.refresh(ANONYMOUS, first.refresh_token)
    with pytest.raises(BadRefreshToken):
        await users_app.sessions.refresh(ANONYMOUS, latest.refresh_token)


async def test_refresh_can_be_repeated_within_ten_seconds(users_app: UsersApp) -> None:
    await users_app.register("ada")
    first = await users_app.sign_in("ada")
    await users_app.sessions.refresh(ANONYMOUS, first.refresh_token)
    users_app.clock.advance(seconds=9)

    again = await users_app.sessions.refresh(ANONYMOUS, first.refresh_token)

    assert await users_app.sessions.refresh(ANONYMOUS, again.refresh_token)


async def test_repeat_does_not_extend_grace_period(users_app: UsersApp) -> None:
    await users_app.register("ada")
    first = await users_app.sign_in("ada")
    await users_app.sessions.refresh(ANONYMOUS, first.refresh_token)
    users_app.clock.advance(seconds=6)
    await users_app.sessions.refresh(ANONYMOUS, first.refresh_token)
    users_app.clock.advance(seconds=6)

    with pytest.raises(BadRefreshToken):
        await users_app.sessions.refresh(ANONYMOUS, first.refresh_token)


async def test_two_tabs_that_refresh_one_token_stay_signed_in(users_app: UsersApp) -> None:
    await users_app.register("ada")
    shared = await users_app.sign_in("ada")

    first = await users_app.sessions.refresh(ANONYMOUS, shared.refresh_token)
    second = await users_app.sessions.refresh(ANONYMOUS, shared.refresh_token)
    first_later = await users_app.sessions.refresh(ANONYMOUS, first.refresh_token)
    second_later = await users_app.sessions.refresh(ANONYMOUS, second.refresh_token)

    assert second.refresh_token == first.refresh_token != shared.refresh_token
    assert second_later.refresh_token == first_later.refresh_token


async def test_tab_with_an_older_token_gets_the_current_one(users_app: UsersApp) -> None:
    """Another tab exchanged the token and its two successors, all in the grace period of 10 s."""
    await users_app.register("ada")
    shared = await users_app.sign_in("ada")
    latest = shared
    for _ in range(3):
        latest = await users_app.sessions.refresh(ANONYMOUS, latest.refresh_token)
        users_app.clock.advance(seconds=3)

    late = await users_app.sessions.refresh(ANONYMOUS, shared.refresh_token)
    users_app.clock.advance(seconds=60)

    assert late.refresh_token == latest.refresh_token
    assert await users_app.sessions.refresh(ANONYMOUS, late.refresh_token)


async def test_concurrent_refreshes_of_one_token_have_one_successor(users_app: UsersApp) -> None:
    await users_app.register("ada")
    token = (await users_app.sign_in("ada")).refresh_token

    for _ in range(3):
        pairs = await gather(*(users_app.sessions.refresh(ANONYMOUS, token) for _ in range(8)))
        assert len({pair.refresh_token for pair in pairs}) == 1
        token = pairs[0].refresh_token


async def test_successor_reused_after_grace_period_revokes_session(users_app: UsersApp) -> None:
    await users_app.register("ada")
    shared = await users_app.sign_in("ada")
    stolen = await users_app.sessions.refresh(ANONYMOUS, shared.refresh_token)
    pair = await users_app.sessions.refresh(ANONYMOUS, shared.refresh_token)
    latest = await users_app.sessions.refresh(ANONYMOUS, pair.refresh_token)
    users_app.clock.advance(seconds=11)

    with pytest.raises(BadRefreshToken):
        await users_app.sessions.refresh(ANONYMOUS, stolen.refresh_token)
    with pytest.raises(BadRefreshToken):
        await users_app.sessions.refresh(ANONYMOUS, latest.refresh_token)


async def outcome(users_app: UsersApp, token: str) -> bool:
    try:
        await users_app.sessions.refresh(ANONYMOUS, token)
    except BadRefreshToken:
        return False
    return True


@pytest.mark.parametrize("token", ["", "x", "é", "A" * 64, "A" * 63 + "=", "A" * 5000, "\x00" * 64])
async def test_malformed_refresh_token_is_rejected(users_app: UsersApp, token: str) -> None:
    with pytest.raises(BadRefreshToken):
        await users_app.sessions.refresh(ANONYMOUS, token)
    await users_app.sessions.revoke(ANONYMOUS, token)


async def test_session_lasts_thirty_days(users_app: UsersApp) -> None:
    await users_app.register("ada")
    pair = await users_app.sign_in("ada")
    users_app.clock.advance(days=29)
    pair = await users_app.sessions.refresh(ANONYMOUS, pair.refresh_token)
    users_app.clock.advance(days=1, seconds=1)

    with pytest.raises(BadRefreshToken):
        await users_app.sessions.refresh(ANONYMOUS, pair.refresh_token)


async def test_revoked_session_is_rejected(users_app: UsersApp) -> None:
    await users_app.register("ada")
    pair, other = await users_app.sign_in("ada"), await users_app.sign_in("ada")

    await users_app.sessions.revoke(ANONYMOUS, pair.refresh_token)
    await users_app.sessions.revoke(ANONYMOUS, pair.refresh_token)

    with pytest.raises(BadRefreshToken):
        await users_app.sessions.refresh(ANONYMOUS, pair.refresh_token)
    assert await users_app.sessions.refresh(ANONYMOUS, other.refresh_token)


async def test_disabling_revokes_sessions_permanently(users_app: UsersApp) -> None:
    account = await users_app.register("ada")
    pair = await users_app.sign_in("ada")
    changed = await users_app.accounts.change_user(
        ANONYMOUS, account.user_id, ChangeUser(is_active=False), {1}
    )

    with pytest.raises(BadRefreshToken):
        await users_app.sessions.refresh(ANONYMOUS, pair.refresh_token)

    await users_app.accounts.change_user(
        ANONYMOUS, account.user_id, ChangeUser(is_active=True), {changed.version}
    )
    with pytest.raises(BadRefreshToken):
        await users_app.sessions.refresh(ANONYMOUS, pair.refresh_token)


async def test_expired_sessions_are_purged(users_app: UsersApp) -> None:
    await users_app.register("ada")
    old = await users_app.sign_in("ada")
    users_app.clock.advance(days=31)
    fresh = await users_app.sign_in("ada")

    for sweep in users_app.container.periodic_jobs():
        await sweep()

    with pytest.raises(BadRefreshToken):
        await users_app.sessions.refresh(ANONYMOUS, old.refresh_token)
    assert await users_app.sessions.refresh(ANONYMOUS, fresh.refresh_token)
    async with users_app.container.database().transaction() as store:
        assert await store.purge_sessions(users_app.clock()) == 0


async def test_jwks_verifies_access_tokens(users_app: UsersApp) -> None:
    (key,) = (await users_app.sessions.get_jwks(ANONYMOUS)).keys

    assert key.kty == "OKP"
    assert len(key.kid) == 43


async def test_fingerprint_distinguishes_secrets(users_app: UsersApp) -> None:
    one, same, other = [
        await users_app.sessions.compute_fingerprint(secret) for secret in ("one", "one", "other")
    ]

    assert one == same != other


# The caller's account


async def test_user_reads_and_updates_own_profile(users_app: UsersApp) -> None:
    await users_app.register("ada")
    ctx = await users_app.sign_in_context("ada")

    named = await users_app.accounts.update_me(
        ctx, ChangeProfile(full_name="Ada"), expected_versions={1}
    )
    tagged = await users_app.accounts.update_me(
        ctx, ChangeProfile(tags=("a", "b")), expected_versions=None
    )
    unnamed = await users_app.accounts.update_me(
        ctx, ChangeProfile(full_name=None), expected_versions={3}
    )

    assert (named.full_name, named.version) == ("Ada", 2)
    assert (tagged.full_name, tagged.tags) == ("Ada", ("a", "b"))
    assert (unnamed.full_name, unnamed.tags, unnamed.version) == (None, ("a", "b"), 4)
    assert await users_app.accounts.get_me(ctx) == unnamed


async def test_no_op_change_keeps_version(users_app: UsersApp) -> None:
    account = await users_app.register("ada")
    ctx = await users_app.sign_in_context("ada")

    assert (
        await users_app.accounts.update_me(ctx, ChangeProfile(), expected_versions=None) == account
    )
    assert await users_app.accounts.update_me(ctx, ChangeProfile(full_name=None), None) == account


async def test_stale_version_is_rejected(users_app: UsersApp) -> None:
    await users_app.register("ada")
    ctx = await users_app.sign_in_context("ada")
    await users_app.accounts.update_me(ctx, ChangeProfile(full_name="Ada"), expected_versions={1})

    with pytest.raises(PreconditionFailed) as error:
        await users_app.accounts.update_me(
            ctx, ChangeProfile(full_name="Eve"), expected_versions={1}
        )

    assert error.value.details == {"etag": '"v2"'}


async def test_one_of_concurrent_changes_wins(users_app: UsersApp) -> None:
    await users_app.register("ada")
    ctx = await users_app.sign_in_context("ada")

    results = await gather(
        *(
            users_app.accounts.update_me(
                ctx, ChangeProfile(full_name=f"Ada {i}"), expected_versions={1}
            )
            for i in range(10)
        ),
        return_exceptions=True,
    )

    assert Counter(type(result).__name__ for result in results) == {
        "UserView": 1,
        "PreconditionFailed": 9,
    }


async def test_disabled_user_with_valid_token_is_rejected(users_app: UsersApp) -> None:
    account = await users_app.register("ada")
    ctx = await users_app.sign_in_context("ada")
    await users_app.accounts.change_user(
        ANONYMOUS, account.user_id, ChangeUser(is_active=False), {1}
    )

    attempts = [
        users_app.accounts.get_me(ctx),
        users_app.accounts.update_me(ctx, ChangeProfile(full_name="Ada"), None),
        users_app.accounts.change_password(ctx, PASSWORD, OTHER_PASSWORD),
        users_app.users.get_active_customer(ctx, account.user_id),
    ]

    for error in await gather(*attempts, return_exceptions=True):
        assert isinstance(error, UserInactive)
        assert error.details == {"user_id": str(account.user_id)}


async def test_password_change_revokes_other_sessions(users_app: UsersApp) -> None:
    await users_app.register("ada")
    here, elsewhere = await users_app.sign_in("ada"), await users_app.sign_in("ada")
    ctx = ANONYMOUS.model_copy(update={"actor": users_app.actor(here)})

    await users_app.accounts.change_password(ctx, PASSWORD, OTHER_PASSWORD)

    assert await users_app.sessions.refresh(ANONYMOUS, here.refresh_token)
    assert await users_app.sign_in("ada", OTHER_PASSWORD)
    with pytest.raises(BadRefreshToken):
        await users_app.sessions.refresh(ANONYMOUS, elsewhere.refresh_token)
    with pytest.raises(BadCredentials):
        await users_app.sign_in("ada", PASSWORD)


async def test_password_change_requires_old_and_strong_new(users_app: UsersApp) -> None:
    await users_app.register("ada")
    ctx = await users_app.sign_in_context("ada")

    with pytest.raises(BadCredentials):
        await users_app.accounts.change_password(ctx, OTHER_PASSWORD, OTHER_PASSWORD)
    with pytest.raises(PasswordUnacceptable):
        await users_app.accounts.change_password(ctx, PASSWORD, "ada@example.com")

    assert await users_app.sign_in("ada", PASSWORD)


async def test_of_two_password_changes_at_once_one_wins(users_app: UsersApp) -> None:
    await users_app.register("ada")
    ctx = await users_app.sign_in_context("ada")

    results = await gather(
        users_app.accounts.change_password(ctx, PASSWORD, OTHER_PASSWORD + "1"),
        users_app.accounts.change_password(ctx, PASSWORD, OTHER_PASSWORD + "2"),
        return_exceptions=True,
    )

    assert sorted(type(result).__name__ for result in results) == ["BadCredentials", "NoneType"]
    winner = OTHER_PASSWORD + str(results.index(None) + 1)
    assert await users_app.sign_in("ada", winner)


async def test_login_racing_password_change_leaves_no_old_session(
    users_app: UsersApp,
) -> None:
    await users_app.register("ada")
    ctx = await users_app.sign_in_context("ada")

    _, *results = await gather(
        users_app.accounts.change_password(ctx, PASSWORD, OTHER_PASSWORD),
        *(users_app.sign_in("ada", PASSWORD) for _ in range(8)),
        return_exceptions=True,
    )

    for pair in results:
        if isinstance(pair, TokenPair):
            assert not await outcome(users_app, pair.refresh_token)


# The current access


async def test_access_is_that_of_the_current_roles(users_app: UsersApp) -> None:
    account = await users_app.register("ada")
    ctx = await users_app.sign_in_context("ada")
    await users_app.accounts.change_user(
        ANONYMOUS, account.user_id, ChangeUser(roles=(Role.STAFF_ORDERS,)), {1}
    )

    access = await users_app.sessions.get_access(ctx)

    assert access.user_id == account.user_id
    assert access.roles == (Role.STAFF_ORDERS,)
    assert set(access.scopes) == SCOPES_BY_ROLE["staff:orders"] | {PROFILE}


@pytest.mark.parametrize("end", ["disabled", "signed_out", "password_changed", "expired"])
async def test_access_ends_with_account_or_session(users_app: UsersApp, end: str) -> None:
    account = await users_app.register("ada")
    pair = await users_app.sign_in("ada")
    ctx = CallContext(actor=users_app.actor(pair), request_id="test")
    other = await users_app.sign_in_context("ada")
    assert await users_app.sessions.get_access(ctx)

    match end:
        case "disabled":
            change = ChangeUser(is_active=False)
            await users_app.accounts.change_user(ANONYMOUS, account.user_id, change, {1})
        case "signed_out":
            await users_app.sessions.revoke(ANONYMOUS, pair.refresh_token)
        case "password_changed":
            await users_app.accounts.change_password(other, PASSWORD, OTHER_PASSWORD)
        case "expired":
            users_app.clock.advance(days=31)

    with pytest.raises(Unauthenticated) as error:
        await users_app.sessions.get_access(ctx)
    assert error.value.details == {"reason": "revoked"}


async def test_unknown_user_has_no_access(users_app: UsersApp) -> None:
    actor = Actor(user_id=new_id(), scopes=frozenset({USERS_MANAGE}))

    with pytest.raises(Unauthenticated):
        await users_app.sessions.get_access(CallContext(actor=actor, request_id="test"))


# User management


async def test_users_are_paginated_by_creation(users_app: UsersApp) -> None:
    made = [await users_app.register(f"user{i}") for i in range(5)]

    first = await users_app.accounts.list_users(ANONYMOUS, 2, None)
    await users_app.register("latecomer")
    second = await users_app.accounts.list_users(ANONYMOUS, 2, first.next_cursor)
    third = await users_app.accounts.list_users(ANONYMOUS, 2, second.next_cursor)

    ids = sorted(account.user_id for account in made)
    assert [a.user_id for a in (*first.items, *second.items)] == ids[:4]
    assert [a.username for a in third.items][-1] == "latecomer"
    assert third.next_cursor is None


async def test_forged_cursor_is_rejected(users_app: UsersApp) -> None:
    with pytest.raises(CursorInvalid):
        await users_app.accounts.list_users(ANONYMOUS, 2, "bm90aGluZw")


async def test_unknown_user_is_not_found(users_app: UsersApp) -> None:
    missing = new_id()
    stranger = ANONYMOUS.model_copy(
        update={"actor": ANONYMOUS.actor.model_copy(update={"user_id": missing})}
    )

    for attempt in (
        users_app.accounts.get_user(MANAGER, missing),
        users_app.accounts.change_user(ANONYMOUS, missing, ChangeUser(), {1}),
        users_app.accounts.get_me(stranger),
        users_app.users.get_active_customer(ANONYMOUS, missing),
    ):
        with pytest.raises(UserNotFound) as error:
            await attempt
        assert error.value.details == {"user_id": str(missing)}


async def test_other_contexts_get_active_customer(users_app: UsersApp) -> None:
    account = await users_app.register("ada")

    customer = await users_app.users.get_active_customer(ANONYMOUS, account.user_id)

    assert (customer.user_id, customer.email) == (account.user_id, "ada@example.com")


async def test_new_roles_are_in_the_next_token(users_app: UsersApp) -> None:
    account = await users_app.register("ada")
    pair = await users_app.sign_in("ada")

    changed = await users_app.accounts.change_user(
        ANONYMOUS, account.user_id, ChangeUser(roles=(Role.ADMIN, Role.ADMIN)), {1}
    )
    fresh = await users_app.sessions.refresh(ANONYMOUS, pair.refresh_token)

    assert changed.roles == (Role.ADMIN,)
    assert changed.version == 2
    assert users_app.actor(fresh).has_scope(USERS_MANAGE)
    assert users_app.actor(fresh).has_scope(PROFILE)


async def test_access_change_requires_current_version(users_app: UsersApp) -> None:
    account = await users_app.register("ada")

    with pytest.raises(PreconditionFailed):
        await users_app.accounts.change_user(
            ANONYMOUS, account.user_id, ChangeUser(is_active=False), {2}
        )


@pytest.mark.parametrize("change", [ChangeUser(is_active=False), ChangeUser(roles=(Role.STAFF,))])
async def test_last_admin_cannot_be_removed(users_app: UsersApp, change: ChangeUser) -> None:
    boss = await users_app.accounts.create_staff("boss@example.com", "admin", PASSWORD)

    with pytest.raises(LastAdmin):
        await users_app.accounts.change_user(ANONYMOUS, boss.user_id, change, {1})

    assert (await users_app.accounts.get_user(MANAGER, boss.user_id)) == boss


async def test_concurrent_admin_removals_leave_one(users_app: UsersApp) -> None:
    admins = [
        await users_app.accounts.create_staff(f"boss{i}@example.com", "admin", PASSWORD)
        for i in range(6)
    ]

    results = await gather(
        *(
            users_app.accounts.change_user(
                ANONYMOUS, admin.user_id, ChangeUser(is_active=False), {1}
            )
            for admin in admins
        ),
        return_exceptions=True,
    )

    assert Counter(type(result).__name__ for result in results) == {"UserView": 5, "LastAdmin": 1}


# Staff accounts


async def test_staff_username_is_derived_from_email(users_app: UsersApp) -> None:
    first = await users_app.accounts.create_staff("é+x@example.com", "staff:orders", PASSWORD)
    second = await users_app.accounts.create_staff("é+x@example.org", "staff:orders", PASSWORD)
    third = await users_app.accounts.create_staff("a@example.org", "customer", PASSWORD, "given")

    assert first.username == ".x_"
    assert second.username.startswith(".x_-")
    assert third.username == "given"
    assert first.roles == (Role.CUSTOMER, Role.STAFF_ORDERS)
    assert third.roles == (Role.CUSTOMER,)


@pytest.mark.parametrize(
    ("email", "role", "username", "error"),
    [
        ("ada@example.com", "staff", None, EmailTaken),
        ("new@example.com", "staff", "ADA", UsernameTaken),
        ("new@example.com", "king", None, ValidationFailed),
        ("nothing", "staff", None, ValidationFailed),
    ],
)
async def test_invalid_staff_is_rejected(
    users_app: UsersApp, email: str, role: str, username: str | None, error: type[DomainError]
) -> None:
    await users_app.register("ada")

    with pytest.raises(error):
        await users_app.accounts.create_staff(email, role, PASSWORD, username)


async def test_bootstrap_admin_is_created_once(users_app: UsersApp) -> None:
    results = await gather(
        *(users_app.accounts.create_first_admin("boss@example.com", PASSWORD) for _ in range(4))
    )

    (boss,) = [result for result in results if result]
    assert Role.ADMIN in boss.roles
    assert await users_app.accounts.create_first_admin("boss@example.com", PASSWORD) is None
    assert await users_app.accounts.count() == 1


async def test_bootstrap_does_not_promote_customer(users_app: UsersApp) -> None:
    customer = await users_app.register("boss")

    with pytest.raises(EmailTaken):
        await users_app.accounts.create_first_admin("boss@example.com", PASSWORD)

    assert await users_app.accounts.get_user(MANAGER, customer.user_id) == customer


# Statement counts


async def test_statement_counts_are_bounded(users_app: UsersApp) -> None:
    account = await users_app.register("ada")
    pair = await users_app.sign_in("ada")
    ctx = await users_app.sign_in_context("ada")
    on_sql = users_app.container.settings().storage == "sql"

    assert await statements(users_app.accounts.get_me(ctx)) == on_sql
    assert await statements(users_app.users.get_active_customer(ctx, account.user_id)) == on_sql
    assert await statements(users_app.accounts.list_users(ctx, 20, None)) == on_sql
    assert await statements(users_app.sign_in("ada")) == 3 * on_sql
    assert await statements(users_app.sessions.refresh(ctx, pair.refresh_token)) == 2 * on_sql


async def statements(work: Awaitable[object]) -> int:
    before = STATEMENTS._value.get()
    await work
    return int(STATEMENTS._value.get() - before)
