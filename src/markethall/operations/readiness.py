"""Readiness: tells whether the databases of this process respond and are migrated."""

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from markethall.container import ApplicationContainer
from markethall.schema_state import SchemaState, load_known_revisions, read_schema_states
from markethall.settings import Settings
from markethall.shared.kernel.circuit_breaker import MonotonicClock
from markethall.shared.kernel.errors import Unavailable

# seconds; checks within this time share one result, so that frequent probes do not load Postgres
RESULT_TTL: Final = 0.5

OK: Final = "ok"


class Readiness:
    """Checks each database of this process. During a shutdown, the process is not ready.

    Redis is not checked, because the process works without Redis, only slower.
    """

    def __init__(
        self,
        settings: Settings,
        container: ApplicationContainer,
        clock: MonotonicClock = time.monotonic,
    ) -> None:
        self._settings = settings
        self._container = container
        self._clock = clock
        self._lock = asyncio.Lock()
        self._states: Mapping[str, str] = {}
        self._checked_at = -RESULT_TTL
        self.draining = False

    async def check(self) -> dict[str, str]:
        """Return the state of each dependency: "ok" or a short text with the problem."""
        async with self._lock:
            if self._clock() - self._checked_at >= RESULT_TTL:
                self._states = await self._check_databases()
                self._checked_at = self._clock()
        return {**self._states, **({"shutdown": "draining"} if self.draining else {})}

    async def _check_databases(self) -> Mapping[str, str]:
        if self._settings.storage == "memory":
            return {}
        await load_known_revisions(self._settings.contexts)
        by_url = self._settings.contexts_by_database
        is_single = len(by_url) == 1
        results = await asyncio.gather(
            *(self._check_database(url, contexts, is_single) for url, contexts in by_url.items())
        )
        return {name: state for result in results for name, state in result.items()}

    async def _check_database(
        self, url: str, contexts: list[str], is_single: bool
    ) -> Mapping[str, str]:
        name = "postgres" if is_single else f"postgres ({', '.join(contexts)})"
        try:
            async with self._container.process.databases().get(url).read_session() as connection:
                states = await read_schema_states(connection, contexts)
        except Unavailable:
            return {name: "down"}
        wrong = {f"schema {c}": s.value for c, s in states.items() if s is not SchemaState.CURRENT}
        return {name: OK, **wrong}
