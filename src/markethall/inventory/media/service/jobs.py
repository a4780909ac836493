"""Deletes the files that belong to no image."""

import asyncio
from collections.abc import Collection
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog

from markethall.inventory.media.ports import MediaStorage, ReadStore, Store
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.persistence.database import Database

log = structlog.get_logger("markethall.media")

# Much longer than MAX_STORING_TIME, so that the files of a running upload are not deleted before
# its row is inserted.
GARBAGE_AGE: Final = timedelta(days=1)
_INTERVAL_SECONDS: Final = 3600.0


class MediaGarbageJob:
    """Deletes files that are older than a day and have no row.

    Such files remain if a process ends after it stored the files and before it inserted the row, or
    after it deleted the row and before it deleted the files. The job has its own loop and is not
    one of the periodic jobs of the context, because a long list of files would delay those jobs.
    """

    def __init__(
        self, database: Database[ReadStore, Store], storage: MediaStorage, clock: Clock
    ) -> None:
        self._database = database
        self._storage = storage
        self._clock = clock

    async def run(self) -> None:
        """Delete unused files now and every hour, until cancelled."""
        while True:
            try:
                await self.run_once()
            except Unavailable as error:
                log.warning("media.garbage_postponed", error=repr(error.details))
            except Exception:  # a failure must not stop the background work of the context
                log.exception("media.garbage_failed")
            await asyncio.sleep(_INTERVAL_SECONDS)

    async def run_once(self) -> None:
        """Delete all unused files. Raises Unavailable.

        Delete nothing if none of the files has a row. The process was then probably started with a
        new or wrong database, and the files belong to rows of another database.
        """
        unused: set[UUID] = set()
        has_own_files = False
        async for keys in self._storage.list_keys(self._clock() - GARBAGE_AGE):
            async with self._database.read_session() as reads:
                used = set(await reads.list_storage_keys(keys))
            has_own_files = has_own_files or bool(used)
            unused |= set(keys) - used
            if has_own_files:
                await self._delete(unused)
                unused.clear()
        if unused:
            log.warning("media.garbage_kept", count=len(unused))

    async def _delete(self, keys: Collection[UUID]) -> None:
        for key in keys:
            await self._storage.delete(key)
            log.info("media.garbage_deleted", storage_key=str(key))
