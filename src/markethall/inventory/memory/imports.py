"""Imports in memory."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from markethall.inventory.contract import ImportStatus
from markethall.inventory.domain import MAIN_WAREHOUSE, Change, Item, Stock
from markethall.inventory.domain.importing import Flaw, Job
from markethall.inventory.memory.products import MemoryProducts


class MemoryImports(MemoryProducts):
    """One transaction, or reads without one: imports and exports."""

    async def open_upload(self, upload_id: UUID, now: datetime) -> None:
        self._tables.uploads.put(upload_id, (upload_id, now))

    async def add_part(self, upload_id: UUID, number: int, data: bytes) -> None:
        self._tables.parts.put((upload_id, number), data)

    async def part(self, upload_id: UUID, number: int) -> bytes | None:
        return self._tables.parts.get((upload_id, number))

    async def drop_upload(self, upload_id: UUID) -> None:
        self._drop_upload(upload_id, None)

    def _drop_upload(self, upload_id: UUID, failed_before: datetime | None) -> None:
        wanted = self._is_wanted(upload_id, failed_before)
        if wanted or not self._tables.uploads.remove(upload_id):
            return
        number = 0
        while self._tables.parts.remove((upload_id, number)):
            number += 1

    async def drop_stale_uploads(self, before: datetime, failed_before: datetime) -> None:
        for upload_id, _ in self._tables.uploads.where(lambda upload: upload[1] < before):
            self._drop_upload(upload_id, failed_before)

    async def drop_old_jobs(self, before: datetime) -> None:
        for job in self._tables.jobs.where(lambda job: _ended(job, before)):
            self._tables.jobs.remove(job.import_id)
            for number in range(1, job.flaws + 1):
                self._tables.flaws.remove((job.import_id, number))

    async def add_job(self, job: Job) -> bool:
        return self._tables.jobs.add(job.import_id, job)

    async def job(self, import_id: UUID) -> Job | None:
        return self._tables.jobs.get(import_id)

    async def lock_job(self, import_id: UUID) -> Job | None:
        return self._tables.jobs.get(import_id)

    async def save_job(self, job: Job) -> None:
        self._tables.jobs.put(job.import_id, job)

    async def take_job(
        self, token: UUID, now: datetime, until: datetime, import_id: UUID | None
    ) -> Job | None:
        free = self._tables.jobs.where(
            lambda job: (
                job.finished_at is None
                and (job.lease_until is None or job.lease_until < now)
                and import_id in {None, job.import_id}
            )
        )
        if not free:
            return None
        job = min(free, key=lambda job: (job.created_at, job.import_id))
        job.status, job.token, job.lease_until = ImportStatus.RUNNING, token, until
        job.started_at = job.started_at or now
        self._tables.jobs.put(job.import_id, job)
        return job

    async def advance_job(self, job: Job, token: UUID, offset: int) -> bool:
        stored = self._tables.jobs.get(job.import_id)
        if stored is None or (stored.token, stored.place.offset) != (token, offset):
            return False
        self._tables.jobs.put(job.import_id, job)
        return True

    async def hand_back_job(self, import_id: UUID, token: UUID) -> None:
        job = self._tables.jobs.get(import_id)
        if job is not None and job.token == token:
            job.token = job.lease_until = None
            self._tables.jobs.put(import_id, job)

    async def flaws(self, import_id: UUID, after: int, limit: int) -> Sequence[tuple[int, Flaw]]:
        numbers = range(after + 1, after + 1 + limit)
        found = ((number, self._tables.flaws.get((import_id, number))) for number in numbers)
        return [(number, flaw) for number, flaw in found if flaw is not None]

    async def note_flaws(self, import_id: UUID, first: int, flaws: Sequence[Flaw]) -> None:
        for number, flaw in enumerate(flaws, first):
            self._tables.flaws.put((import_id, number), flaw)

    async def known_items(self, skus: Collection[str]) -> Sequence[Item]:
        ids = sorted(key for sku in skus if (key := self._tables.skus.get(sku)))
        return [item for key in ids if (item := self._tables.items.get(key))]

    async def main_shelves(self, product_ids: Collection[UUID]) -> Mapping[UUID, Stock]:
        found = ((key, self._tables.stock.get((key, MAIN_WAREHOUSE))) for key in product_ids)
        return {key: stock for key, stock in found if stock is not None}

    async def items_after(self, after: UUID | None, limit: int) -> Sequence[tuple[Item, int]]:
        items = self._tables.items.where(lambda item: after is None or item.product_id > after)
        items.sort(key=lambda item: item.product_id)
        shelves = await self.main_shelves([item.product_id for item in items[:limit]])
        return [(item, shelves[item.product_id].on_hand) for item in items[:limit]]

    async def put_items(self, fresh: Sequence[Item], changed: Sequence[Item]) -> bool:
        for item in changed:
            await self.save(item)
        return all([await self.add(item) for item in fresh])

    async def move_all(self, changes: Sequence[Change]) -> None:
        await self.move(changes)

    def _is_wanted(self, upload_id: UUID, failed_before: datetime | None) -> bool:
        return bool(
            self._tables.jobs.where(
                lambda job: (
                    job.upload_id == upload_id
                    and job.status != ImportStatus.DONE
                    and not _ended(job, failed_before)
                )
            )
        )


def _ended(job: Job, before: datetime | None) -> bool:
    return bool(before and job.finished_at and job.finished_at < before)
