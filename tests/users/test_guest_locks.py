"""Test that claims and the purge of sessions lock rows in the same order, in Postgres."""

import asyncio

import asyncpg
import pytest

from markethall.shared.persistence.postgres import Postgres
from markethall.shared.security.passwords import Passwords
from markethall.users.contract import BadGuestToken
from tests.conftest import plain
from tests.users.conftest import attempt_without_key, build_users_app
from tests.users.test_guests import RETENTION, claim, create_guest

WAITS_FOR_A_LOCK = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_claim_that_waits_for_the_session_has_not_locked_the_guest(
    database_url: str, postgres: Postgres, passwords: Passwords, kind: str
) -> None:
    """The purge deletes the session before the guest, so the reverse order could deadlock."""
    users_app = build_users_app("sql", passwords, postgres)
    guest = await create_guest(users_app)
    await users_app.register("ada")
    ctx = await users_app.sign_in_context("ada")
    purge, observer = [await asyncpg.connect(plain(database_url)) for _ in range(2)]

    async with purge.transaction():
        await purge.execute("DELETE FROM users.session WHERE guest_id = $1", guest.guest_id)
        claiming = asyncio.create_task(claim(users_app, ctx, getattr(guest, kind)))
        while not await observer.fetchval(WAITS_FOR_A_LOCK):
            assert not claiming.done()
        await purge.execute("DELETE FROM users.guest WHERE guest_id = $1", guest.guest_id)
    with pytest.raises(BadGuestToken):
        await claiming
    for connection in (purge, observer):
        await connection.close()


async def test_claims_with_expired_tokens_do_not_deadlock_with_the_purge(
    postgres: Postgres, passwords: Passwords
) -> None:
    users_app = build_users_app("sql", passwords, postgres)
    await users_app.register("ada")
    for _ in range(10):
        guests = [await create_guest(users_app) for _ in range(5)]
        users_app.clock.advance(days=RETENTION.days + 1)
        ctx = await users_app.sign_in_context("ada")

        claims = (
            users_app.container.guests().claim_guest(ctx, one.refresh_token, attempt_without_key())
            for one in guests
        )
        job = users_app.container.session_purge_job()
        *results, _ = await asyncio.gather(*claims, job.run_once(), return_exceptions=True)

        assert [type(result) for result in results] == [BadGuestToken] * 5
        assert await users_app.container.guests().count_guests() == 0
