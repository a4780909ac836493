"""Password hashes, password rules and the bounded thread pool."""

import asyncio
import threading
from collections.abc import Iterator
from unicodedata import normalize

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from markethall.shared.kernel.errors import Overloaded
from markethall.shared.security.common_passwords import common_passwords
from markethall.shared.security.passwords import (
    MAX_LENGTH,
    MIN_LENGTH,
    Passwords,
    weakness,
)

STRONG = "correct horse battery staple"


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    passwords = Passwords(cost=4)
    yield passwords
    passwords.close()


async def test_password_matches_own_hash_only(passwords: Passwords) -> None:
    hashed = await passwords.hash(STRONG)

    assert await passwords.verify(STRONG, hashed)
    assert not await passwords.verify(STRONG + "r", hashed)
    assert hashed.startswith("$2b$04$")
    assert hashed != await passwords.hash(STRONG)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x" * 72 + "one", "x" * 72 + "two"),
        ("é" * 60 + "one", "é" * 60 + "two"),
        ("before\x00one", "before\x00two"),
        ("before", "before\x00"),
        ("Correct horse", "correct horse"),
        ("trailing ", "trailing"),
    ],
)
async def test_every_character_is_significant(passwords: Passwords, one: str, other: str) -> None:
    hashed = await passwords.hash(one)

    assert await passwords.verify(one, hashed)
    assert not await passwords.verify(other, hashed)


async def test_password_is_unicode_normalized(passwords: Passwords) -> None:
    hashed = await passwords.hash("caf\u00e9 \ufb01ne")

    assert await passwords.verify("cafe\u0301 fine", hashed)


async def test_unknown_user_never_verifies(passwords: Passwords) -> None:
    for password in ("", STRONG, "." * 31):
        assert not await passwords.verify(password, None)


def test_unknown_user_takes_same_time(passwords: Passwords) -> None:
    """bcrypt takes the same time for hashes of the same cost, so only the costs are compared."""
    real_hash = bcrypt.hashpw(b"x", bcrypt.gensalt(4))

    assert passwords._dummy_hash[:7] == real_hash[:7] == b"$2b$04$"
    assert len(passwords._dummy_hash) == len(real_hash)
    assert not bcrypt.checkpw(b"x", passwords._dummy_hash)


async def test_full_queue_is_overloaded() -> None:
    passwords = Passwords(cost=4, workers=1, queue=2)
    released = threading.Event()
    running = asyncio.create_task(passwords._run_in_executor(released.wait))
    waiting = [asyncio.create_task(passwords.hash(STRONG)) for _ in range(9)]
    await asyncio.sleep(0)  # starts all tasks; the running job cannot end yet

    released.set()
    results = await asyncio.gather(running, *waiting, return_exceptions=True)

    rejected = [result for result in results if isinstance(result, Overloaded)]
    assert len(rejected) == 7
    assert rejected[0].retry_after == 1
    assert await passwords.hash(STRONG)
    passwords.close()


async def test_cancelled_job_releases_slot() -> None:
    passwords = Passwords(cost=8, workers=1, queue=3)
    waiting = [asyncio.create_task(passwords.hash(STRONG)) for _ in range(4)]
    await asyncio.sleep(0)

    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)

    # one job may still run; the slots of the others are free
    assert await asyncio.gather(*(passwords.hash(STRONG) for _ in range(3)))
    passwords.close()


async def test_job_that_waits_too_long_is_dropped() -> None:
    # one job takes about a second, so the others wait longer than `max_wait_seconds`
    passwords = Passwords(cost=14, workers=1, queue=4, max_wait_seconds=0.3)

    first, *others = await asyncio.gather(
        *(passwords.hash(STRONG) for _ in range(4)), return_exceptions=True
    )

    assert isinstance(first, str)
    assert [type(error) for error in others] == [Overloaded] * 3
    assert {getattr(error, "retry_after", None) for error in others} == {2}
    # the slots are free again
    assert await passwords.hash(STRONG)
    passwords.close()


async def test_hashing_does_not_block_event_loop() -> None:
    passwords = Passwords(cost=11, workers=2, queue=8)
    work = asyncio.gather(*(passwords.hash(STRONG) for _ in range(4)))
    iterations = 0

    while not work.done():
        await asyncio.sleep(0.001)
        iterations += 1

    assert iterations > 20
    passwords.close()


async def test_closed_hasher_rejects_work(passwords: Passwords) -> None:
    passwords.close()

    with pytest.raises(Overloaded):
        await passwords.hash(STRONG)


@settings(max_examples=60, deadline=None)
@given(one=st.text(max_size=300), other=st.text(max_size=300))
def test_distinct_texts_are_distinct_passwords(one: str, other: str) -> None:
    passwords = Passwords(cost=4)

    async def check() -> bool:
        hashed = await passwords.hash(one)
        assert await passwords.verify(one, hashed)
        return await passwords.verify(other, hashed)

    is_match = asyncio.run(check())

    passwords.close()
    assert is_match == (normalize("NFKC", one) == normalize("NFKC", other))


def test_stored_hash_is_plain_bcrypt() -> None:
    passwords = Passwords(cost=4)

    hashed = asyncio.run(passwords.hash(STRONG))

    passwords.close()
    assert len(hashed) == 60
    assert not bcrypt.checkpw(STRONG.encode(), hashed.encode())


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("", "too_short"),
        ("seven77", "too_short"),
        # eight code points, which Unicode normalization reduces to four
        ("e\u0301" * 4, "too_short"),
        ("x" * (MAX_LENGTH + 1), "too_long"),
        ("password", "too_common"),
        ("PASSWORD1", "too_common"),
        ("\uff50assword", "too_common"),
        ("ada.lovelace", "personal"),
        ("ADA.Lovelace", "personal"),
        (STRONG, None),
        ("eight_88"[:MIN_LENGTH], None),
        ("x" * MAX_LENGTH, None),
        ("密码密码密码密码", None),
        ("        ", None),
    ],
)
def test_short_and_common_passwords_are_weak(password: str, reason: str | None) -> None:
    assert weakness(password, "ada.lovelace", "ada@example.com") == reason


def test_common_list_has_only_long_enough_passwords() -> None:
    words = common_passwords()

    assert len(words) > 10_000
    assert all(
        MIN_LENGTH <= len(word) <= MAX_LENGTH and word == normalize("NFKC", word).casefold()
        for word in words
    )
    # very frequent passwords of several years and languages
    assert words >= {"12345678", "password1", "1q2w3e4r", "iloveyou", "sunshine", "motdepasse"}
    assert all(weakness(word.upper()) == "too_common" for word in words)
