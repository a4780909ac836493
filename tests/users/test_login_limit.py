"""The limits of password guesses.

After FREE_LOGIN_FAILURES failed guesses, sign-in to the account is delayed, longer after each
further guess. A network from which the user has signed in has its own limit, so that an attacker
cannot lock the user out.
"""

from asyncio import gather
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import Overloaded, TooManyRequests
from markethall.shared.kernel.ids import new_id
from markethall.shared.security.passwords import Passwords
from markethall.users.contract import TokenPair
from markethall.users.contract.errors import BadCredentials, PasswordUnacceptable
from markethall.users.domain.login_failures import (
    FREE_LOGIN_FAILURES,
    LOGIN_FAILURES_RETENTION,
    MAX_LOGIN_DELAY,
    LoginFailures,
    login_delay,
)
from tests.users.conftest import PASSWORD, UsersApp, build_users_app

HOME = "198.51.100.7"
ATTACKER = "203.0.113.9"
WRONG = "not the password of ada"


@pytest.fixture(params=["memory", "sql"])
def limited_app(request: pytest.FixtureRequest, passwords: Passwords) -> UsersApp:
    postgres = request.getfixturevalue("postgres") if request.param == "sql" else None
    return build_users_app(request.param, passwords, postgres, rate_limits="on")


async def sign_in(app: UsersApp, login: str, password: str, client_ip: str) -> TokenPair:
    return await app.sessions.sign_in(
        CallContext(request_id="test", client_ip=client_ip), login, password
    )


async def guess(app: UsersApp, login: str = "ada", client_ip: str = ATTACKER) -> str:
    """Sign in with a wrong password. Return the name of the error type."""
    with pytest.raises((BadCredentials, TooManyRequests)) as error:
        await sign_in(app, login, WRONG, client_ip)
    return error.type.__name__


async def exhaust(app: UsersApp, login: str = "ada", client_ip: str = ATTACKER) -> None:
    for _ in range(FREE_LOGIN_FAILURES):
        assert await guess(app, login, client_ip) == "BadCredentials"
    assert await guess(app, login, client_ip) == "TooManyRequests"


# names of one account: user name and e-mail address, in other letter cases and full-width letters
SPELLINGS = ["ADA", "Ada", "\uff41da", "ada@example.com", "ADA@EXAMPLE.COM", "\uff41da@Example.com"]


async def test_all_spellings_of_an_account_share_one_limit(limited_app: UsersApp) -> None:
    await limited_app.register("ada")

    results = [
        await guess(limited_app, SPELLINGS[number % len(SPELLINGS)], f"203.0.113.{number}")
        for number in range(FREE_LOGIN_FAILURES + len(SPELLINGS))
    ]

    allowed, delayed = results[:FREE_LOGIN_FAILURES], results[FREE_LOGIN_FAILURES:]
    assert (set(allowed), set(delayed)) == ({"BadCredentials"}, {"TooManyRequests"})


@pytest.mark.parametrize("login", ["unregistered", "unregistered@example.com", "not an address@@"])
async def test_unknown_account_is_limited_in_the_same_way(
    limited_app: UsersApp, login: str
) -> None:
    await exhaust(limited_app, login)

    assert await guess(limited_app, login.upper()) == "TooManyRequests"
    assert await guess(limited_app, f"other-{login}") == "BadCredentials"


async def test_correct_password_is_not_tried_during_a_delay(limited_app: UsersApp) -> None:
    await limited_app.register("ada")
    await exhaust(limited_app)

    with pytest.raises(TooManyRequests) as error:
        await sign_in(limited_app, "ada", PASSWORD, ATTACKER)

    assert error.value.details["policy"] == "login-account"
    assert 0 < (error.value.retry_after or 0) <= 30


async def test_concurrent_guesses_are_counted_before_they_are_tried(limited_app: UsersApp) -> None:
    await limited_app.register("ada")

    results = Counter(await gather(*(guess(limited_app) for _ in range(30))))

    assert results == {"BadCredentials": FREE_LOGIN_FAILURES, "TooManyRequests": 20}


async def test_patient_attacker_has_few_guesses_in_a_month(limited_app: UsersApp) -> None:
    await limited_app.register("ada")
    guesses = 0
    start = limited_app.clock()

    while limited_app.clock() - start < timedelta(days=30):
        try:
            await sign_in(limited_app, "ada", WRONG, ATTACKER)
        except BadCredentials:
            guesses += 1
        except TooManyRequests as error:
            limited_app.clock.advance(seconds=error.retry_after or 0)

    # fewer than the 100 failed attempts in a row that NIST SP 800-63B, section 3.2.2, allows
    assert guesses <= 60


async def test_known_network_signs_in_during_an_attack(limited_app: UsersApp) -> None:
    await limited_app.register("ada")
    await sign_in(limited_app, "ada", PASSWORD, HOME)
    await exhaust(limited_app)

    for _ in range(3):
        assert await sign_in(limited_app, "ada@example.com", PASSWORD, HOME)

    assert await guess(limited_app) == "TooManyRequests"


async def test_known_network_has_a_limit_of_its_own(limited_app: UsersApp) -> None:
    await limited_app.register("ada")
    await sign_in(limited_app, "ada", PASSWORD, HOME)

    await exhaust(limited_app, client_ip=HOME)

    with pytest.raises(TooManyRequests):
        await sign_in(limited_app, "ada", PASSWORD, HOME)
    assert await sign_in(limited_app, "ada", PASSWORD, "192.0.2.1")


async def test_network_of_another_user_is_not_known(limited_app: UsersApp) -> None:
    await limited_app.register("ada")
    await limited_app.register("eve")
    await sign_in(limited_app, "eve", PASSWORD, ATTACKER)

    await exhaust(limited_app)

    assert await guess(limited_app, client_ip="203.0.113.99") == "TooManyRequests"


async def test_success_clears_the_failures(limited_app: UsersApp) -> None:
    await limited_app.register("ada")
    for _ in range(3):
        for _ in range(FREE_LOGIN_FAILURES - 1):
            await guess(limited_app, client_ip="")
        await sign_in(limited_app, "ada", PASSWORD, "")


async def test_change_of_password_shares_the_limit(limited_app: UsersApp) -> None:
    await limited_app.register("ada")
    pair = await sign_in(limited_app, "ada", PASSWORD, HOME)
    stolen = CallContext(actor=limited_app.actor(pair), request_id="test", client_ip=ATTACKER)
    for _ in range(FREE_LOGIN_FAILURES):
        with pytest.raises(BadCredentials):
            await limited_app.accounts.change_password(stolen, WRONG, "another long sentence")

    with pytest.raises(TooManyRequests):
        await limited_app.accounts.change_password(stolen, PASSWORD, "another long sentence")
    assert await guess(limited_app, client_ip="203.0.113.77") == "TooManyRequests"


async def test_rejected_new_password_is_not_a_failed_login(limited_app: UsersApp) -> None:
    await limited_app.register("ada")
    pair = await sign_in(limited_app, "ada", PASSWORD, HOME)
    ctx = CallContext(actor=limited_app.actor(pair), request_id="test", client_ip=ATTACKER)

    for _ in range(FREE_LOGIN_FAILURES + 1):
        with pytest.raises(PasswordUnacceptable):
            await limited_app.accounts.change_password(ctx, PASSWORD, "short")

    await limited_app.accounts.change_password(ctx, PASSWORD, "another long sentence")


async def test_attempt_that_was_not_verified_is_not_counted(limited_app: UsersApp) -> None:
    await limited_app.register("ada")
    busy = Passwords(cost=4, workers=1, queue=0)
    busy.close()
    check = limited_app.container.password_check()
    ready, check._passwords = check._passwords, busy
    for _ in range(FREE_LOGIN_FAILURES + 5):
        with pytest.raises(Overloaded):
            await sign_in(limited_app, "ada", PASSWORD, ATTACKER)
    check._passwords = ready

    assert await sign_in(limited_app, "ada", PASSWORD, ATTACKER)


async def test_quiet_and_excess_rows_are_purged(limited_app: UsersApp) -> None:
    await limited_app.register("ada")
    await guess(limited_app, "ada")
    limited_app.clock.advance(days=LOGIN_FAILURES_RETENTION.days + 1)
    for number in range(5):
        await guess(limited_app, f"unknown-{number}")
        limited_app.clock.advance(seconds=1)
    await guess(limited_app, "ada@example.com")
    database, now = limited_app.container.database(), limited_app.clock()

    async with database.transaction() as store:
        deleted = await store.purge_login_failures(now - LOGIN_FAILURES_RETENTION, max_unknown=2)
        again = await store.purge_login_failures(now - LOGIN_FAILURES_RETENTION, max_unknown=2)

    assert (deleted, again) == (3, 0)


async def test_periodic_job_purges_quiet_rows(limited_app: UsersApp) -> None:
    await exhaust(limited_app, "unregistered")
    limited_app.clock.advance(days=LOGIN_FAILURES_RETENTION.days + 1)

    for job in limited_app.container.periodic_jobs():
        await job()

    database, now = limited_app.container.database(), limited_app.clock()
    async with database.transaction() as store:
        assert await store.purge_login_failures(now, max_unknown=0) == 0


async def test_limits_can_be_off(passwords: Passwords) -> None:
    app = build_users_app("memory", passwords, rate_limits="off")
    await app.register("ada")

    results = {await guess(app) for _ in range(2 * FREE_LOGIN_FAILURES)}

    assert results == {"BadCredentials"}


def test_delays_grow_from_half_a_minute_to_a_day() -> None:
    delays = [login_delay(failures) for failures in range(100_000)]

    assert delays[:FREE_LOGIN_FAILURES] == [timedelta()] * FREE_LOGIN_FAILURES
    assert [delay.total_seconds() for delay in delays[10:14]] == [30, 60, 120, 240]
    assert delays == sorted(delays)
    assert delays[-1] == MAX_LOGIN_DELAY == timedelta(days=1)


def test_delay_ends_exactly() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    failures = LoginFailures(b"", new_id(), FREE_LOGIN_FAILURES, now)

    with pytest.raises(TooManyRequests):
        failures.begin(now + timedelta(seconds=29, microseconds=999_999))
    failures.begin(now + timedelta(seconds=30))

    assert failures.failures == FREE_LOGIN_FAILURES + 1
