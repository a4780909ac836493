"""Every implementation of users keeps these promises."""

from asyncio import gather
from collections import Counter
from collections.abc import Awaitable
from datetime import timedelta

import pytest

from markethall.shared.auth import PROFILE, SCOPES_OF_ROLE, USERS_MANAGE
from markethall.shared.errors import Invalid, PreconditionFailed, Refusal
from markethall.shared.http import DAY
from markethall.shared.idempotency import Attempt, Claim
from markethall.shared.ids import new_id
from markethall.shared.metrics import STATEMENTS
from markethall.shared.pages import CursorInvalid
from markethall.users.contract import (
    BadCredentials,
    BadRefreshToken,
    ChangeProfile,
    ChangeUser,
    EmailTaken,
    LastAdmin,
    PasswordUnacceptable,
    Register,
    Role,
    TokenPair,
    UserInactive,
    UsernameTaken,
    UserNotFound,
)
from tests.users.conftest import ANYONE, PASSWORD, House, no_key, present

OTHER_PASSWORD = "tr0ubador and three more words"


def person(username: str, email: str, **more: object) -> Register:
    return Register.model_validate(
        {"username": username, "email": email, "password": PASSWORD, **more}
    )


# Signing up


async def test_a_new_customer_is_active_and_has_only_the_role_of_one(house: House) -> None:
    command = person("Ada", "Ada@Example.COM", full_name="Ada Lovelace", tags=("vip",))

    account = await house.accounts.register(ANYONE, command, no_key())

    assert account.username == "Ada"
    assert account.email == "Ada@example.com"
    assert account.full_name == "Ada Lovelace"
    assert account.tags == ("vip",)
    assert account.roles == (Role.CUSTOMER,)
    assert account.is_active
    assert not account.email_verified
    assert account.version == 1
    assert account.signup_date.utcoffset() == timedelta()


async def test_a_name_is_taken_in_any_case(house: House) -> None:
    await house.register("ada")

    with pytest.raises(UsernameTaken) as refusal:
        await house.accounts.register(ANYONE, person("ADA", "other@example.com"), no_key())

    assert refusal.value.details == {"username": "ADA"}


@pytest.mark.parametrize(
    "same",
    ["ADA@example.com", "ada@EXAMPLE.com", "\uff41da@example.com"],  # a full-width a
)
async def test_an_address_is_taken_in_any_case_and_unicode_form(house: House, same: str) -> None:
    await house.register("ada")

    with pytest.raises(EmailTaken) as refusal:
        await house.accounts.register(ANYONE, person("somebody", same), no_key())

    assert same not in repr(refusal.value)


@pytest.mark.parametrize(
    "name",
    ["ad", "a" * 51, "ada l", "ada@x", "\u0430da", "ada\u200b", "\uff41da", "ada\n", "ad\x00a", ""],
)
async def test_a_name_that_looks_like_another_is_refused(house: House, name: str) -> None:
    with pytest.raises(Invalid) as refusal:
        await house.accounts.register(ANYONE, person(name, "ada@example.com"), no_key())

    assert refusal.value.details["errors"][0]["field"] == "/username"


@pytest.mark.parametrize(
    "email", ["", "ada", "ada@", "@example.com", "a@b@c.de", "ada@exa mple.de"]
)
async def test_what_is_no_address_is_refused(house: House, email: str) -> None:
    with pytest.raises(Invalid) as refusal:
        await house.accounts.register(ANYONE, person("ada", email), no_key())

    assert refusal.value.details["errors"][0]["field"] == "/email"


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
async def test_a_weak_password_is_refused(house: House, password: str, reason: str) -> None:
    command = person("ada.lovelace", "countess@example.com", password=password)

    with pytest.raises(PasswordUnacceptable) as refusal:
        await house.accounts.register(ANYONE, command, no_key())

    assert refusal.value.details == {"reason": reason}
    assert await house.accounts.count() == 0


async def test_of_twenty_who_want_a_name_at_once_one_gets_it(house: House) -> None:
    names = [
        "".join(c.upper() if n >> i & 1 else c for i, c in enumerate("racer")) for n in range(20)
    ]

    results = await gather(
        *(
            house.accounts.register(ANYONE, person(name, f"{i}@example.com"), no_key())
            for i, name in enumerate(names)
        ),
        return_exceptions=True,
    )

    assert Counter(type(result).__name__ for result in results) == {
        "Account": 1,
        "UsernameTaken": 19,
    }
    assert await house.accounts.count() == 1


async def test_of_twenty_with_one_address_at_once_one_gets_in(house: House) -> None:
    results = await gather(
        *(
            house.accounts.register(ANYONE, person(f"racer{i}", "Racer@example.com"), no_key())
            for i in range(20)
        ),
        return_exceptions=True,
    )

    assert Counter(type(result).__name__ for result in results) == {"Account": 1, "EmailTaken": 19}


async def test_an_attempt_that_is_tried_again_finds_its_own_account(house: House) -> None:
    attempt = Attempt("", new_id(), DAY, present)
    first = await house.accounts.register(ANYONE, person("ada", "ada@example.com"), attempt)

    again = await house.accounts.register(ANYONE, person("ada", "ada@example.com"), attempt)

    assert again == first
    assert first.user_id == attempt.id
    assert await house.accounts.count() == 1


async def test_the_answer_is_kept_under_its_key(house: House) -> None:
    claims = house.container.backend().claims
    now = house.watch()
    claim = Claim(scope="key", request_hash="hash", id=new_id(), lease_until=now)
    await claims.claim(claim, now + DAY)

    attempt = Attempt("key", claim.id, DAY, present)
    account = await house.accounts.register(ANYONE, person("ada", "ada@example.com"), attempt)

    standing = await claims.claim(claim, now + DAY)
    assert standing is not None
    assert standing.answer == present(account)
    assert PASSWORD not in standing.model_dump_json()


# Signing in


@pytest.mark.parametrize("name", ["ada", "ADA", "ada@example.com", "Ada@EXAMPLE.com"])
async def test_one_signs_in_by_name_or_address_in_any_case(house: House, name: str) -> None:
    account = await house.register("ada")

    pair = await house.sign_in(name)

    actor = house.actor(pair)
    assert actor.user_id == account.user_id
    assert actor.roles == ("customer",)
    assert actor.scopes == SCOPES_OF_ROLE["customer"] | {PROFILE}
    assert pair.scope == " ".join(sorted(actor.scopes))
    assert pair.expires_in == 900


async def test_unknown_wrong_and_disabled_get_the_same_answer(house: House) -> None:
    await house.register("ada")
    disabled = await house.register("bob")
    await house.accounts.change_user(ANYONE, disabled.user_id, ChangeUser(is_active=False), {1})

    refusals = await gather(
        house.sign_in("ada", OTHER_PASSWORD),
        house.sign_in("nobody"),
        house.sign_in("nobody@example.com"),
        house.sign_in("no body at all@@"),
        house.sign_in("bob"),
        return_exceptions=True,
    )

    assert all(isinstance(refusal, BadCredentials) for refusal in refusals)
    assert len({repr(refusal) for refusal in refusals}) == 1


async def test_passwords_that_differ_only_after_byte_72_are_different(house: House) -> None:
    stem = "é" * 60
    await house.register("ada", stem + "one")

    with pytest.raises(BadCredentials):
        await house.sign_in("ada", stem + "two")

    assert await house.sign_in("ada", stem + "one")


async def test_no_secret_is_in_a_repr(house: House) -> None:
    await house.register("ada")

    pair = await house.sign_in("ada")

    assert pair.access_token not in repr(pair)
    assert pair.refresh_token not in repr(pair)
    assert PASSWORD not in repr(person("ada", "ada@example.com"))


# Staying in


async def test_a_refresh_token_is_traded_for_a_new_pair_of_the_same_session(house: House) -> None:
    account = await house.register("ada")
    first = await house.sign_in("ada")

    second = await house.sessions.refresh(ANYONE, first.refresh_token)
    third = await house.sessions.refresh(ANYONE, second.refresh_token)

    assert len({first.refresh_token, second.refresh_token, third.refresh_token}) == 3
    assert house.actor(third).user_id == account.user_id
    assert house.actor(third).session_id == house.actor(first).session_id


async def test_a_token_that_was_traded_before_ends_the_session(house: House) -> None:
    await house.register("ada")
    first = await house.sign_in("ada")
    second = await house.sessions.refresh(ANYONE, first.refresh_token)
    house.watch.forward(seconds=11)

    with pytest.raises(BadRefreshToken):
        await house.sessions.refresh(ANYONE, first.refresh_token)
    with pytest.raises(BadRefreshToken):
        await house.sessions.refresh(ANYONE, second.refresh_token)


async def test_a_token_of_long_ago_ends_the_session_too(house: House) -> None:
    await house.register("ada")
    first = await house.sign_in("ada")
    latest = first
    for _ in range(3):
        latest = await house.sessions.refresh(ANYONE, latest.refresh_token)

    with pytest.raises(BadRefreshToken):
        await house.sessions.refresh(ANYONE, first.refresh_token)
    with pytest.raises(BadRefreshToken):
        await house.sessions.refresh(ANYONE, latest.refresh_token)


async def test_who_never_got_the_answer_may_ask_again_for_ten_seconds(house: House) -> None:
    await house.register("ada")
    first = await house.sign_in("ada")
    await house.sessions.refresh(ANYONE, first.refresh_token)
    house.watch.forward(seconds=9)

    again = await house.sessions.refresh(ANYONE, first.refresh_token)

    assert await house.sessions.refresh(ANYONE, again.refresh_token)


async def test_asking_again_does_not_extend_the_grace(house: House) -> None:
    await house.register("ada")
    first = await house.sign_in("ada")
    await house.sessions.refresh(ANYONE, first.refresh_token)
    house.watch.forward(seconds=6)
    await house.sessions.refresh(ANYONE, first.refresh_token)
    house.watch.forward(seconds=6)

    with pytest.raises(BadRefreshToken):
        await house.sessions.refresh(ANYONE, first.refresh_token)


async def test_of_many_trades_at_once_only_the_last_token_lives_on(house: House) -> None:
    await house.register("ada")
    first = await house.sign_in("ada")

    pairs = await gather(*(house.sessions.refresh(ANYONE, first.refresh_token) for _ in range(8)))
    results = [await outcome(house, pair.refresh_token) for pair in pairs]

    # whoever traded last may go on, unless a token that was overtaken has ended the session
    assert len({pair.refresh_token for pair in pairs}) == 8
    assert sum(results) <= 1


async def outcome(house: House, token: str) -> bool:
    try:
        await house.sessions.refresh(ANYONE, token)
    except BadRefreshToken:
        return False
    return True


@pytest.mark.parametrize("token", ["", "x", "é", "A" * 64, "A" * 63 + "=", "A" * 5000, "\x00" * 64])
async def test_what_is_no_refresh_token_is_refused(house: House, token: str) -> None:
    with pytest.raises(BadRefreshToken):
        await house.sessions.refresh(ANYONE, token)
    await house.sessions.revoke(ANYONE, token)


async def test_a_session_ends_thirty_days_after_the_sign_in(house: House) -> None:
    await house.register("ada")
    pair = await house.sign_in("ada")
    house.watch.forward(days=29)
    pair = await house.sessions.refresh(ANYONE, pair.refresh_token)
    house.watch.forward(days=1, seconds=1)

    with pytest.raises(BadRefreshToken):
        await house.sessions.refresh(ANYONE, pair.refresh_token)


async def test_a_revoked_session_is_over(house: House) -> None:
    await house.register("ada")
    pair, other = await house.sign_in("ada"), await house.sign_in("ada")

    await house.sessions.revoke(ANYONE, pair.refresh_token)
    await house.sessions.revoke(ANYONE, pair.refresh_token)

    with pytest.raises(BadRefreshToken):
        await house.sessions.refresh(ANYONE, pair.refresh_token)
    assert await house.sessions.refresh(ANYONE, other.refresh_token)


async def test_a_disabled_user_stays_out_also_when_enabled_again(house: House) -> None:
    account = await house.register("ada")
    pair = await house.sign_in("ada")
    changed = await house.accounts.change_user(
        ANYONE, account.user_id, ChangeUser(is_active=False), {1}
    )

    with pytest.raises(BadRefreshToken):
        await house.sessions.refresh(ANYONE, pair.refresh_token)

    await house.accounts.change_user(
        ANYONE, account.user_id, ChangeUser(is_active=True), {changed.version}
    )
    with pytest.raises(BadRefreshToken):
        await house.sessions.refresh(ANYONE, pair.refresh_token)


async def test_expired_sessions_are_forgotten(house: House) -> None:
    await house.register("ada")
    old = await house.sign_in("ada")
    house.watch.forward(days=31)
    fresh = await house.sign_in("ada")

    for sweep in house.container.sweeps():
        await sweep()

    with pytest.raises(BadRefreshToken):
        await house.sessions.refresh(ANYONE, old.refresh_token)
    assert await house.sessions.refresh(ANYONE, fresh.refresh_token)
    async with house.container.database().transaction() as store:
        assert await store.purge_sessions(house.watch()) == 0


async def test_the_key_set_is_what_tokens_are_checked_with(house: House) -> None:
    (key,) = (await house.sessions.key_set(ANYONE)).keys

    assert key.kty == "OKP"
    assert len(key.kid) == 43


async def test_a_fingerprint_tells_secrets_apart_and_nothing_else(house: House) -> None:
    one, same, other = [
        await house.sessions.fingerprint(secret) for secret in ("one", "one", "other")
    ]

    assert one == same != other


# One's own account


async def test_one_sees_and_changes_what_one_says_about_oneself(house: House) -> None:
    await house.register("ada")
    call = await house.call_of("ada")

    named = await house.accounts.update_me(call, ChangeProfile(full_name="Ada"), seen={1})
    tagged = await house.accounts.update_me(call, ChangeProfile(tags=("a", "b")), seen=None)
    unnamed = await house.accounts.update_me(call, ChangeProfile(full_name=None), seen={3})

    assert (named.full_name, named.version) == ("Ada", 2)
    assert (tagged.full_name, tagged.tags) == ("Ada", ("a", "b"))
    assert (unnamed.full_name, unnamed.tags, unnamed.version) == (None, ("a", "b"), 4)
    assert await house.accounts.me(call) == unnamed


async def test_a_change_that_changes_nothing_is_no_new_version(house: House) -> None:
    account = await house.register("ada")
    call = await house.call_of("ada")

    assert await house.accounts.update_me(call, ChangeProfile(), seen=None) == account
    assert await house.accounts.update_me(call, ChangeProfile(full_name=None), None) == account


async def test_a_change_over_a_newer_version_is_refused(house: House) -> None:
    await house.register("ada")
    call = await house.call_of("ada")
    await house.accounts.update_me(call, ChangeProfile(full_name="Ada"), seen={1})

    with pytest.raises(PreconditionFailed) as refusal:
        await house.accounts.update_me(call, ChangeProfile(full_name="Eve"), seen={1})

    assert refusal.value.details == {"etag": '"v2"'}


async def test_of_many_changes_to_one_version_one_is_made(house: House) -> None:
    await house.register("ada")
    call = await house.call_of("ada")

    results = await gather(
        *(
            house.accounts.update_me(call, ChangeProfile(full_name=f"Ada {i}"), seen={1})
            for i in range(10)
        ),
        return_exceptions=True,
    )

    assert Counter(type(result).__name__ for result in results) == {
        "Account": 1,
        "PreconditionFailed": 9,
    }


async def test_a_disabled_user_with_a_good_token_is_refused(house: House) -> None:
    account = await house.register("ada")
    call = await house.call_of("ada")
    await house.accounts.change_user(ANYONE, account.user_id, ChangeUser(is_active=False), {1})

    attempts = [
        house.accounts.me(call),
        house.accounts.update_me(call, ChangeProfile(full_name="Ada"), None),
        house.accounts.change_password(call, PASSWORD, OTHER_PASSWORD),
        house.users.active(call, account.user_id),
    ]

    for refusal in await gather(*attempts, return_exceptions=True):
        assert isinstance(refusal, UserInactive)
        assert refusal.details == {"user_id": str(account.user_id)}


async def test_a_new_password_ends_all_sessions_but_this_one(house: House) -> None:
    await house.register("ada")
    here, elsewhere = await house.sign_in("ada"), await house.sign_in("ada")
    call = ANYONE.model_copy(update={"actor": house.actor(here)})

    await house.accounts.change_password(call, PASSWORD, OTHER_PASSWORD)

    assert await house.sessions.refresh(ANYONE, here.refresh_token)
    assert await house.sign_in("ada", OTHER_PASSWORD)
    with pytest.raises(BadRefreshToken):
        await house.sessions.refresh(ANYONE, elsewhere.refresh_token)
    with pytest.raises(BadCredentials):
        await house.sign_in("ada", PASSWORD)


async def test_a_new_password_needs_the_old_one_and_must_be_good(house: House) -> None:
    await house.register("ada")
    call = await house.call_of("ada")

    with pytest.raises(BadCredentials):
        await house.accounts.change_password(call, OTHER_PASSWORD, OTHER_PASSWORD)
    with pytest.raises(PasswordUnacceptable):
        await house.accounts.change_password(call, PASSWORD, "ada@example.com")

    assert await house.sign_in("ada", PASSWORD)


async def test_of_two_password_changes_at_once_one_wins(house: House) -> None:
    await house.register("ada")
    call = await house.call_of("ada")

    results = await gather(
        house.accounts.change_password(call, PASSWORD, OTHER_PASSWORD + "1"),
        house.accounts.change_password(call, PASSWORD, OTHER_PASSWORD + "2"),
        return_exceptions=True,
    )

    assert sorted(type(result).__name__ for result in results) == ["BadCredentials", "NoneType"]
    winner = OTHER_PASSWORD + str(results.index(None) + 1)
    assert await house.sign_in("ada", winner)


async def test_a_sign_in_raced_with_a_new_password_leaves_no_session_of_the_old(
    house: House,
) -> None:
    await house.register("ada")
    call = await house.call_of("ada")

    _, *results = await gather(
        house.accounts.change_password(call, PASSWORD, OTHER_PASSWORD),
        *(house.sign_in("ada", PASSWORD) for _ in range(8)),
        return_exceptions=True,
    )

    for pair in results:
        if isinstance(pair, TokenPair):
            assert not await outcome(house, pair.refresh_token)


# Managing users


async def test_users_are_listed_page_by_page_in_the_order_they_came(house: House) -> None:
    made = [await house.register(f"user{i}") for i in range(5)]

    first = await house.accounts.users(ANYONE, 2, None)
    await house.register("latecomer")
    second = await house.accounts.users(ANYONE, 2, first.next_cursor)
    third = await house.accounts.users(ANYONE, 2, second.next_cursor)

    ids = sorted(account.user_id for account in made)
    assert [a.user_id for a in (*first.items, *second.items)] == ids[:4]
    assert [a.username for a in third.items][-1] == "latecomer"
    assert third.next_cursor is None


async def test_a_cursor_that_was_made_up_is_refused(house: House) -> None:
    with pytest.raises(CursorInvalid):
        await house.accounts.users(ANYONE, 2, "bm90aGluZw")


async def test_nobody_is_found_under_an_unknown_id(house: House) -> None:
    missing = new_id()
    stranger = ANYONE.model_copy(
        update={"actor": ANYONE.actor.model_copy(update={"user_id": missing})}
    )

    for attempt in (
        house.accounts.user(ANYONE, missing),
        house.accounts.change_user(ANYONE, missing, ChangeUser(), {1}),
        house.accounts.me(stranger),
        house.users.active(ANYONE, missing),
    ):
        with pytest.raises(UserNotFound) as refusal:
            await attempt
        assert refusal.value.details == {"user_id": str(missing)}


async def test_neighbours_learn_who_is_active(house: House) -> None:
    account = await house.register("ada")

    customer = await house.users.active(ANYONE, account.user_id)

    assert (customer.user_id, customer.email) == (account.user_id, "ada@example.com")


async def test_new_roles_are_in_the_next_token(house: House) -> None:
    account = await house.register("ada")
    pair = await house.sign_in("ada")

    changed = await house.accounts.change_user(
        ANYONE, account.user_id, ChangeUser(roles=(Role.ADMIN, Role.ADMIN)), {1}
    )
    fresh = await house.sessions.refresh(ANYONE, pair.refresh_token)

    assert changed.roles == (Role.ADMIN,)
    assert changed.version == 2
    assert house.actor(fresh).may(USERS_MANAGE)
    assert house.actor(fresh).may(PROFILE)


async def test_a_user_is_changed_only_as_it_was_seen(house: House) -> None:
    account = await house.register("ada")

    with pytest.raises(PreconditionFailed):
        await house.accounts.change_user(ANYONE, account.user_id, ChangeUser(is_active=False), {2})


@pytest.mark.parametrize("change", [ChangeUser(is_active=False), ChangeUser(roles=(Role.STAFF,))])
async def test_the_last_admin_stays(house: House, change: ChangeUser) -> None:
    boss = await house.accounts.create_staff("boss@example.com", "admin", PASSWORD)

    with pytest.raises(LastAdmin):
        await house.accounts.change_user(ANYONE, boss.user_id, change, {1})

    assert (await house.accounts.user(ANYONE, boss.user_id)) == boss


async def test_admins_who_dismiss_each_other_at_once_leave_one(house: House) -> None:
    admins = [
        await house.accounts.create_staff(f"boss{i}@example.com", "admin", PASSWORD)
        for i in range(6)
    ]

    results = await gather(
        *(
            house.accounts.change_user(ANYONE, admin.user_id, ChangeUser(is_active=False), {1})
            for admin in admins
        ),
        return_exceptions=True,
    )

    assert Counter(type(result).__name__ for result in results) == {"Account": 5, "LastAdmin": 1}


# The first people


async def test_staff_gets_a_name_from_the_address(house: House) -> None:
    first = await house.accounts.create_staff("é+x@example.com", "staff:orders", PASSWORD)
    second = await house.accounts.create_staff("é+x@example.org", "staff:orders", PASSWORD)
    third = await house.accounts.create_staff("a@example.org", "customer", PASSWORD, "given")

    assert first.username == ".x_"
    assert second.username.startswith(".x_-")
    assert third.username == "given"
    assert first.roles == (Role.CUSTOMER, Role.STAFF_ORDERS)
    assert third.roles == (Role.CUSTOMER,)


@pytest.mark.parametrize(
    ("email", "role", "username", "refusal"),
    [
        ("ada@example.com", "staff", None, EmailTaken),
        ("new@example.com", "staff", "ADA", UsernameTaken),
        ("new@example.com", "king", None, Invalid),
        ("nothing", "staff", None, Invalid),
    ],
)
async def test_staff_that_cannot_be_made_is_refused(
    house: House, email: str, role: str, username: str | None, refusal: type[Refusal]
) -> None:
    await house.register("ada")

    with pytest.raises(refusal):
        await house.accounts.create_staff(email, role, PASSWORD, username)


async def test_the_first_admin_is_made_once_by_however_many_processes(house: House) -> None:
    results = await gather(
        *(house.accounts.first_admin("boss@example.com", PASSWORD) for _ in range(4))
    )

    (boss,) = [result for result in results if result]
    assert Role.ADMIN in boss.roles
    assert await house.accounts.first_admin("boss@example.com", PASSWORD) is None
    assert await house.accounts.count() == 1


async def test_a_customer_is_not_promoted_to_first_admin(house: House) -> None:
    customer = await house.register("boss")

    with pytest.raises(EmailTaken):
        await house.accounts.first_admin("boss@example.com", PASSWORD)

    assert await house.accounts.user(ANYONE, customer.user_id) == customer


# Budgets


async def test_statements_stay_within_their_budget(house: House) -> None:
    account = await house.register("ada")
    pair = await house.sign_in("ada")
    call = await house.call_of("ada")
    on_sql = house.container.config.storage() == "sql"

    assert await statements(house.accounts.me(call)) == on_sql
    assert await statements(house.users.active(call, account.user_id)) == on_sql
    assert await statements(house.accounts.users(call, 20, None)) == on_sql
    assert await statements(house.sign_in("ada")) == 2 * on_sql
    assert await statements(house.sessions.refresh(call, pair.refresh_token)) == 2 * on_sql


async def statements(work: Awaitable[object]) -> int:
    before = STATEMENTS._value.get()
    await work
    return int(STATEMENTS._value.get() - before)
