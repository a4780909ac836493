"""Files that staff send, and what becomes of them; and the catalogue as a file."""

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import suppress
from typing import Final
from uuid import UUID

from markethall.inventory.contract import (
    Import,
    ImportForgotten,
    ImportNotFound,
    NewImport,
    RowError,
    Upload,
)
from markethall.inventory.domain.importing import HEADER, Job, cells_of, csv_row
from markethall.inventory.ports import Database
from markethall.inventory.service.sources import PART
from markethall.shared.call import Call
from markethall.shared.clock import Clock
from markethall.shared.errors import Busy, Unavailable
from markethall.shared.idempotency import Attempt
from markethall.shared.ids import new_id
from markethall.shared.pages import Cursors, Page, PageQuery

# rows of an export that are in memory at once
_AT_ONCE: Final = 500
# who watch, in this process
_MOST_FOLLOWERS: Final = 32
# seconds between two looks at an import that is watched, and until a sign of life
_LOOK: Final = 0.5
_SILENCE: Final = 10.0


class ImportService:
    """A contract.Imports."""

    def __init__(
        self, database: Database, wake: Callable[[], None], cursors: Cursors, clock: Clock
    ) -> None:
        self._database = database
        self._wake = wake
        self._cursors = cursors
        self._clock = clock
        self._followers = 0

    async def upload(self, call: Call, chunks: AsyncIterable[bytes]) -> Upload:  # noqa: ARG002 - the contract
        upload_id = new_id()
        async with self._database.transaction() as store:
            await store.open_upload(upload_id, self._clock())
        try:
            return await self._kept(upload_id, chunks)
        except BaseException:
            with suppress(Unavailable):
                await self._drop(upload_id)
            raise

    async def _kept(self, upload_id: UUID, chunks: AsyncIterable[bytes]) -> Upload:
        digest, size, number = hashlib.sha256(), 0, 0
        async for part in _parts(chunks):
            digest.update(part)
            size += len(part)
            # a transaction each: a slow client keeps no connection
            async with self._database.transaction() as store:
                await store.add_part(upload_id, number, part)
            number += 1
        return Upload(upload_id=upload_id, size=size, sha256=digest.hexdigest())

    async def discard(self, call: Call, upload: Upload) -> None:  # noqa: ARG002 - the contract
        # the sweep comes for what stays
        with suppress(Unavailable):
            await self._drop(upload.upload_id)

    async def _drop(self, upload_id: UUID) -> None:
        async with self._database.transaction() as store:
            await store.drop_upload(upload_id)

    async def start(
        self, call: Call, upload: Upload, command: NewImport, attempt: Attempt
    ) -> Import:
        job = Job.new(attempt.id, upload, command, call.actor.known_as, self._clock())
        async with self._database.transaction() as store:
            if not await store.add_job(job):
                # by the same attempt: this upload is not needed
                job = await store.job(attempt.id) or job
            view = job.view()
            await store.finish(attempt, view)
        self._wake()
        return view

    async def imported(self, call: Call, import_id: UUID) -> Import:  # noqa: ARG002 - the contract
        async with self._database.reading() as shelf:
            return _found(await shelf.job(import_id), import_id).view()

    async def follow(self, call: Call, import_id: UUID) -> AsyncIterator[Import | None]:
        if self._followers >= _MOST_FOLLOWERS:
            raise Busy(retry_after=10)
        return self._follow(call, import_id, await self.imported(call, import_id))

    async def _follow(
        self, call: Call, import_id: UUID, seen: Import
    ) -> AsyncIterator[Import | None]:
        self._followers += 1
        try:
            yield seen
            silent = 0.0
            while seen.finished_at is None:
                await asyncio.sleep(_LOOK)
                silent += _LOOK
                now = await self.imported(call, import_id)
                if now != seen:
                    seen, silent = now, 0.0
                    yield seen
                elif silent >= _SILENCE:
                    silent = 0.0
                    yield None
        finally:
            self._followers -= 1

    async def errors(self, call: Call, import_id: UUID, query: PageQuery) -> Page[RowError]:  # noqa: ARG002 - the contract
        name = f"imports:{import_id}"
        after = (self._cursors.decode(name, query.cursor) or [0])[0]
        async with self._database.reading() as shelf:
            rows = await shelf.flaws(import_id, after, query.limit + 1)
            if not rows:
                _found(await shelf.job(import_id), import_id)
        page = self._cursors.page(name, rows, query.limit, lambda row: [row[0]])
        items = tuple(RowError(**vars(flaw)) for _, flaw in page.items)
        return Page(items=items, next_cursor=page.next_cursor)

    async def retry(self, call: Call, import_id: UUID, attempt: Attempt) -> Import:  # noqa: ARG002 - the contract
        async with self._database.transaction() as store:
            job = _found(await store.lock_job(import_id), import_id)
            job.retry()
            if job.size and await store.part(job.upload_id, 0) is None:
                raise ImportForgotten(import_id=str(import_id))
            await store.save_job(job)
            view = job.view()
            await store.finish(attempt, view)
        self._wake()
        return view

    async def export(self, call: Call) -> AsyncIterator[bytes]:  # noqa: ARG002 - the contract
        head = csv_row(HEADER)
        after: UUID | None = None
        while True:
            # one statement each, and no connection while the client takes its time
            async with self._database.reading() as shelf:
                rows = await shelf.items_after(after, _AT_ONCE)
            yield "".join([head, *(csv_row(cells_of(*row)) for row in rows)]).encode()
            head = ""
            if len(rows) < _AT_ONCE:
                return
            after = rows[-1][0].product_id


async def _parts(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Of one size, but for the last: so a place in the file says which part it is in."""
    waiting = bytearray()
    async for chunk in chunks:
        waiting += chunk
        while len(waiting) >= PART:
            yield bytes(waiting[:PART])
            del waiting[:PART]
    if waiting:
        yield bytes(waiting)


def _found(job: Job | None, import_id: UUID) -> Job:
    if job is None:
        raise ImportNotFound(import_id=str(import_id))
    return job
