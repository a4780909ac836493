"""The work on imports: whichever process takes one drives it to its end."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog

from markethall.inventory.contract import Import
from markethall.inventory.domain.importing import MOST_KEPT, Job, Place, Unreadable
from markethall.inventory.ports import Database, ProductCache, SearchIndex, Store
from markethall.inventory.service.holds import ExpiredHolds
from markethall.inventory.service.merging import Late, Merge, Overtaken, check_late, keep, merged
from markethall.inventory.service.sources import Ahead, Batch, Source
from markethall.shared.clock import Clock
from markethall.shared.errors import Unavailable
from markethall.shared.ids import new_id

log = structlog.get_logger("markethall.imports")

BATCH: Final = 1000
# where the database has no time for many rows, fewer are tried
_LEAST: Final = 50
# whoever is silent for so long has died
LEASE: Final = timedelta(seconds=30)
# an upload that nothing came of
_STALE: Final = timedelta(hours=1)
# who wants to try a failed one again does so within a week; a file may have 64 MiB
_RETRIED: Final = timedelta(days=7)
# an import that has ended, and what was wrong with its rows
_KEPT: Final = timedelta(days=90)
_TIDY: Final = timedelta(minutes=5)
# seconds
_POLL: Final = 1.0
_PAUSE: Final = 0.5
_TRIES: Final = 20


class TurnLost(Exception):
    """Our lease ran out, and somebody else has taken the import."""


class Moved(Exception):
    """Our turn it is, but a batch that we took for lost was kept."""


class Importer:
    """Takes imports one after the other. A batch of rows, its errors and the new place are one
    transaction: whoever dies loses no row, and applies none twice.
    """

    def __init__(
        self,
        database: Database,
        cache: ProductCache,
        expired: ExpiredHolds,
        index: SearchIndex,
        clock: Clock,
    ) -> None:
        self._database = database
        self._cache = cache
        self._expired = expired
        self._index = index
        self._clock = clock
        self._woken = asyncio.Event()
        self._tidy_at = clock()

    def wake(self) -> None:
        """There is work, in this process: do not wait for the next look."""
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._woken.clear()
            try:
                if await self.work() is not None:
                    continue
            except Unavailable:
                log.warning("import.waiting")
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL):
                    await self._woken.wait()

    async def work(self, import_id: UUID | None = None) -> Import | None:
        """Take one (this one) and drive it to its end; None when there is none to take."""
        token, now = new_id(), self._clock()
        async with self._database.transaction() as store:
            job = await store.take_job(token, now, now + LEASE, import_id)
        if job is None:
            return None
        try:
            job = await self._drive(job, token)
        except TurnLost:
            log.warning("import.lost", import_id=str(job.import_id))
        finally:
            await self._leave(job, token)
        return job.view()

    async def sweep(self) -> None:
        """Forget uploads that nothing came of, and imports of long ago."""
        now = self._clock()
        if now >= self._tidy_at:
            self._tidy_at = now + _TIDY
            async with self._database.transaction() as store:
                await store.drop_stale_uploads(now - _STALE, now - _RETRIED)
                await store.drop_old_jobs(now - _KEPT)

    async def _drive(self, job: Job, token: UUID) -> Job:
        """Raises TurnLost, Unavailable."""
        source = Source(self._database, job)
        try:
            reader, first = await source.open()
            job = replace(job, format=reader.format)
            return await self._drive_on(job, token, Ahead(source, reader), first)
        except Unreadable as reason:
            return await self._failed(job, token, reason)
        except (Unavailable, TurnLost):
            raise
        except Exception:
            log.exception("import.failed", import_id=str(job.import_id))
            fault = Unreadable("internal", "A fault of ours: a retry goes on where it stopped.")
            return await self._failed(job, token, fault)

    async def _drive_on(self, job: Job, token: UUID, ahead: Ahead, first: Place) -> Job:
        """Rows are looked at while the database has the ones before. Raises TurnLost,
        Unavailable.
        """
        size = BATCH
        try:
            while not job.finished_at:
                place = max(job.place, first, key=lambda place: place.offset)
                batch = await ahead.batch(place, size)
                ahead.begin(batch.after, size)
                job, size = await self._applied(job, token, batch, size)
        finally:
            await ahead.end()
        return job

    async def _applied(self, job: Job, token: UUID, batch: Batch, size: int) -> tuple[Job, int]:
        """The job as it stands then, and the size of the next batch."""
        for _ in range(_TRIES):
            try:
                return await self._apply(job, token, batch), min(BATCH, 2 * size)
            except Overtaken:
                continue
            except Unavailable:
                await asyncio.sleep(_PAUSE)
            except Moved:
                pass
            with suppress(Unavailable):
                stored = await self._stored(job, token)
                if stored.place != job.place:
                    # it was kept, only the answer was lost
                    return stored, size
                if size > _LEAST:
                    # the same rows, in more than one go
                    return job, size // 2
        raise Unavailable(dependency="postgres")

    async def _stored(self, job: Job, token: UUID) -> Job:
        """Where the import stands. Raises TurnLost, Unavailable."""
        async with self._database.reading() as shelf:
            stored = await shelf.job(job.import_id)
        if stored is None or (stored.token != token and not stored.finished_at):
            raise TurnLost
        return replace(stored, format=job.format)

    async def _apply(self, job: Job, token: UUID, batch: Batch) -> Job:
        """Once more without expired holds when they stand in its way. Raises Overtaken, Moved,
        Unavailable.
        """
        try:
            return await self._tried(job, token, batch)
        except Late as late:
            await self._expired.give_back(late.product_ids)
        return await self._tried(job, token, batch, last=True)

    async def _tried(self, job: Job, token: UUID, batch: Batch, *, last: bool = False) -> Job:
        """Raises Late unless it is the last time, Overtaken, Moved, Unavailable."""
        merge: Merge | None = None
        try:
            async with self._database.transaction() as store:
                merge = await merged(store, job, batch.rows, self._clock())
                if not last:
                    await check_late(store, merge)
                job = await self._keep(store, job, token, batch, merge)
        except Unavailable:
            # it may have been kept all the same
            if merge and not job.dry_run:
                self._cache.invalidate(merge.touched, pages=True)
            raise
        if not job.dry_run:
            await self._tell(merge)
        return job

    async def _keep(self, store: Store, job: Job, token: UUID, batch: Batch, merge: Merge) -> Job:
        """The job as it stands then. Raises Overtaken, Moved."""
        if not job.dry_run:
            await keep(store, merge)
        kept = merge.flaws[: max(0, MOST_KEPT - job.flaws)]
        await store.note_flaws(job.import_id, job.flaws + 1, kept)
        advanced = _advanced(job, batch, merge, len(kept))
        if not await store.advance_job(advanced, token, job.place.offset):
            raise Moved
        if advanced.finished_at:
            await store.drop_upload(job.upload_id)
        return advanced

    async def _tell(self, merge: Merge) -> None:
        """After the commit: what was rendered of these products is old now."""
        touched = merge.touched
        self._cache.invalidate(touched, pages=bool(touched))
        if items := merge.written:
            await self._index.tell(items)

    async def _failed(self, job: Job, token: UUID, reason: Unreadable) -> Job:
        failed = replace(job)
        failed.fail(reason, self._clock())
        async with self._database.transaction() as store:
            if not await store.advance_job(failed, token, job.place.offset):
                raise TurnLost
        return failed

    async def _leave(self, job: Job, token: UUID) -> None:
        """Told to end, or without a database: the next one need not wait for the lease."""
        if job.finished_at:
            return
        with suppress(Unavailable):
            async with self._database.transaction() as store:
                await store.hand_back_job(job.import_id, token)


def _advanced(job: Job, batch: Batch, merge: Merge, flaws: int) -> Job:
    job = replace(job, lease_until=merge.now + LEASE)
    job.advance(batch.after, batch.read, merge.outcomes, flaws, merge.now)
    return job
