"""The database constraints of the schema `users`."""

import asyncpg
import pytest

from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.postgres import Postgres

HASH = "$2b$04$" + "." * 53
VALID_USER = {
    "username": "ada",
    "username_key": "ada",
    "email": "ada@example.com",
    "email_key": "ada@example.com",
    "password_hash": HASH,
    "full_name": None,
    "tags": [],
    "roles": ["customer"],
    "version": 1,
}
INSERT = """
    INSERT INTO users."user" (user_id, is_active, email_verified, signup_date, username,
        username_key, email, email_key, password_hash, full_name, tags, roles, version)
    VALUES ($1, true, false, now(), $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""


async def add(postgres: Postgres, **changes: object) -> None:
    async with postgres.read_session() as session:
        await session._driver.execute(INSERT, new_id(), *(VALID_USER | changes).values())


async def test_valid_row_is_accepted(postgres: Postgres) -> None:
    await add(postgres)


@pytest.mark.parametrize(
    "wrong",
    [
        {"username": "a b c", "username_key": "a b c"},
        {"username": "ada\n", "username_key": "ada\n"},
        {"username": "ab", "username_key": "ab"},
        {"username": "Ada", "username_key": "Ada"},
        {"username_key": "other.name"},
        {"email": ""},
        {"email_key": ""},
        {"password_hash": "correct horse battery staple"},
        {"password_hash": ""},
        {"full_name": "x" * 201},
        {"tags": ["t"] * 21},
        {"tags": ["t" * 1001]},
        {"roles": []},
        {"roles": ["king"]},
        {"version": 0},
    ],
    ids=str,
)
async def test_inconsistent_account_is_rejected(
    postgres: Postgres, wrong: dict[str, object]
) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await add(postgres, **wrong)


@pytest.mark.parametrize(
    "same",
    [
        {"username": "ADA", "email": "b@example.com", "email_key": "b@example.com"},
        {"username": "bob", "username_key": "bob"},
    ],
    ids=["name", "address"],
)
async def test_username_and_email_are_unique(postgres: Postgres, same: dict[str, object]) -> None:
    await add(postgres)

    with pytest.raises(asyncpg.UniqueViolationError):
        await add(postgres, **same)


async def test_session_requires_user(postgres: Postgres) -> None:
    insert = """
        INSERT INTO users.session (session_id, user_id, family_hash, token_hash, generation,
            exchanged_hashes, exchanged_at, created_at, expires_at)
        VALUES ($1, $2, $3, $3, 0, '{}', '{}', now(), now() + interval '1 day')
    """

    async with postgres.read_session() as session:
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await session._driver.execute(insert, new_id(), new_id(), b"x" * 32)
        with pytest.raises(asyncpg.CheckViolationError):
            await session._driver.execute(insert, new_id(), new_id(), b"short")
