"""How processes tell each other what they forget: by Redis, or by the database they share."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import structlog

from markethall.shared.cache.debts import CHANNEL, Debts, read_said, said_of
from markethall.shared.cache.ports import Ear, Forgotten
from markethall.shared.db import Postgres, Session
from markethall.shared.errors import Unavailable
from markethall.shared.redis import RedisAway, RedisClient

log = structlog.get_logger("markethall.cache")

# seconds: so often a silent connection is asked whether it still is one
PULSE: Final = 0.5
RETRY: Final = 0.25
# for more to forget, which is told together: many sales a second are still few messages
_GATHER: Final = 0.02
# bytes; Postgres takes less than 8000
_LONGEST: Final = 7500
_PG_CHANNEL: Final = "markethall_cache"


class RedisBell:
    """Redis rings itself, in the same script that forgets; here it is only heard."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    def ring(self, names: Sequence[Forgotten]) -> None:
        """It has rung already."""

    async def close(self) -> None:
        """Nothing is owed."""

    async def listen(self, ear: Ear) -> None:
        while True:
            try:
                await self._listen(ear)
            except RedisAway:
                pass
            except Exception:  # whatever it is: a deaf process would be one until its end
                log.exception("cache.deaf")
            await asyncio.sleep(RETRY)

    async def _listen(self, ear: Ear) -> None:
        async with self._redis.subscribed(CHANNEL, PULSE) as following:
            try:
                ear.hears(True)
                while True:
                    ear.heard(read_said(await following()))
            finally:
                ear.hears(False)


class PostgresBell:
    """By NOTIFY over one connection of its own. What could not be told is told later."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._owed = Debts()
        self._rung = asyncio.Event()

    def ring(self, names: Sequence[Forgotten]) -> None:
        for space, key in names:
            self._owed.owe(space, key)
        self._rung.set()

    async def listen(self, ear: Ear) -> None:
        while True:
            try:
                async with self._postgres.apart() as session:
                    await self._serve(session, ear)
            except Unavailable:
                pass
            except Exception:  # whatever it is: a deaf process would be one until its end
                log.exception("cache.deaf")
            await asyncio.sleep(RETRY)

    async def close(self) -> None:
        if self._owed:
            with suppress(Unavailable):
                async with self._postgres.apart() as session:
                    await self._tell(session)

    async def _serve(self, session: Session, ear: Ear) -> None:
        failed: list[Exception] = []

        def hear(text: str) -> None:
            try:
                ear.heard(read_said(text))
            except Exception as error:  # noqa: BLE001 - asyncpg would only note it: it is raised below
                failed.append(error)
                self._rung.set()

        await session.listen(_PG_CHANNEL, hear)
        try:
            ear.hears(True)
            while not failed:
                with suppress(TimeoutError):
                    async with asyncio.timeout(PULSE):
                        await self._rung.wait()
                        await asyncio.sleep(_GATHER)
                self._rung.clear()
                await self._tell(session)
            raise failed[0]
        finally:
            ear.hears(False)

    async def _tell(self, session: Session) -> None:
        bill = self._owed.bill()
        # nothing said is heard by nobody, but shows that the connection lives
        said = said_of(list(bill))
        if len(said) > _LONGEST:
            said = said_of([(space, None) for space in {space for space, _ in bill}])
        await session.notify(_PG_CHANNEL, said)
        self._owed.settle(bill)
