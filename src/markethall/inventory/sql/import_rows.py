"""Imports in SQL: what the rest of the context sees of the statements."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from markethall.inventory.contract import ImportFormat, ImportStatus
from markethall.inventory.domain import MAIN_WAREHOUSE, Change, Item, Stock
from markethall.inventory.domain.importing import Flaw, Job, Place
from markethall.inventory.sql import imports
from markethall.inventory.sql.product_rows import item_of
from markethall.inventory.sql.staging import Staging
from markethall.shared import sql as shared

if TYPE_CHECKING:
    from asyncpg.protocol import Record


class SqlImports(shared.SqlStore):
    """One transaction, or reads without one: imports and exports."""

    # Uploads

    async def open_upload(self, upload_id: UUID, now: datetime) -> None:
        await self._session.run(imports.OPEN_UPLOAD, upload_id=upload_id, created_at=now)

    async def add_part(self, upload_id: UUID, number: int, data: bytes) -> None:
        await self._session.run(imports.ADD_PART, upload_id=upload_id, number=number, data=data)

    async def part(self, upload_id: UUID, number: int) -> bytes | None:
        data: bytes | None = await self._session.value(imports.PART, of=upload_id, which=number)
        return data

    async def drop_upload(self, upload_id: UUID) -> None:
        await self._session.run(imports.DROP_UPLOAD, of=upload_id)

    async def drop_stale_uploads(self, before: datetime, failed_before: datetime) -> None:
        await self._session.run(imports.DROP_STALE, before=before, failed_before=failed_before)

    async def drop_old_jobs(self, before: datetime) -> None:
        await self._session.run(imports.DROP_OLD_JOBS, before=before)

    # Jobs

    async def add_job(self, job: Job) -> bool:
        return bool(await self._session.run(imports.ADD_JOB, **_job_row(job)))

    async def job(self, import_id: UUID) -> Job | None:
        return _job(await self._session.one(imports.JOB, of=import_id))

    async def lock_job(self, import_id: UUID) -> Job | None:
        return _job(await self._session.one(imports.LOCK_JOB, of=import_id))

    async def save_job(self, job: Job) -> None:
        await self._session.run(imports.SAVE_JOB, **_new_row(job))

    async def take_job(
        self, token: UUID, now: datetime, until: datetime, import_id: UUID | None
    ) -> Job | None:
        return _job(
            await self._session.one(
                imports.TAKE_JOB, mine=token, now=now, until=until, only=import_id
            )
        )

    async def advance_job(self, job: Job, token: UUID, offset: int) -> bool:
        return bool(
            await self._session.run(
                imports.ADVANCE_JOB, **_new_row(job), mine=token, old_offset=offset
            )
        )

    async def hand_back_job(self, import_id: UUID, token: UUID) -> None:
        await self._session.run(imports.HAND_BACK_JOB, of=import_id, mine=token)

    # Errors

    async def flaws(self, import_id: UUID, after: int, limit: int) -> Sequence[tuple[int, Flaw]]:
        rows = await self._session.all(imports.FLAWS, of=import_id, after=after, limit=limit)
        names = ("line", "field", "code", "message")
        return [(row["number"], Flaw(*(row[name] for name in names))) for row in rows]

    async def note_flaws(self, import_id: UUID, first: int, flaws: Sequence[Flaw]) -> None:
        rows = [
            {"import_id": import_id, "number": number, **vars(flaw)}
            for number, flaw in enumerate(flaws, first)
        ]
        await self._session.many(imports.NOTE_FLAW, rows)

    # Products

    async def known_items(self, skus: Collection[str]) -> Sequence[Item]:
        rows = await self._session.all(imports.KNOWN_ITEMS, skus=list(skus))
        return [item_of(row) for row in rows]

    async def main_shelves(self, product_ids: Collection[UUID]) -> Mapping[UUID, Stock]:
        rows = await self._session.all(imports.SHELVES, product_ids=list(product_ids))
        return {
            row["product_id"]: _stock(row) for row in rows if row["warehouse_id"] == MAIN_WAREHOUSE
        }

    async def items_after(self, after: UUID | None, limit: int) -> Sequence[tuple[Item, int]]:
        rows = await self._session.all(
            imports.ITEMS_AFTER, after=after, limit=limit, main=MAIN_WAREHOUSE
        )
        return [(item_of(row), row["on_hand"]) for row in rows]

    async def put_items(self, fresh: Sequence[Item], changed: Sequence[Item]) -> bool:
        return await Staging(self._session).put(fresh, changed) == len(fresh)

    async def move_all(self, changes: Sequence[Change]) -> None:
        await self._session.run(
            imports.MOVE_ALL,
            movements=[change.movement_id for change in changes],
            product_ids=[change.product_id for change in changes],
            deltas=[change.delta for change in changes],
            main=MAIN_WAREHOUSE,
            why=changes[0].reason.value,
            words=changes[0].note,
            who=changes[0].actor,
            now=changes[0].created_at,
        )


def _stock(row: "Record") -> Stock:
    names = ("product_id", "warehouse_id", "on_hand", "reserved", "backorder")
    return Stock(**{name: row[name] for name in names})


_SAME = (
    "import_id",
    "upload_id",
    "size",
    "dry_run",
    "currency",
    "actor",
    "read",
    "flaws",
    "failure_code",
    "failure_message",
    "created_at",
    "started_at",
    "finished_at",
    "moved_at",
    "token",
    "lease_until",
)
_OUTCOMES = ("created", "updated", "unchanged", "failed")


def _job_row(job: Job) -> dict[str, Any]:
    return {
        **{name: getattr(job, name) for name in _SAME},
        **{name: job.outcomes.get(name, 0) for name in _OUTCOMES},
        "format": job.format.value,
        "status": job.status.value,
        "place_offset": job.place.offset,
        "place_line": job.place.line,
        "place_skipping": job.place.skipping,
        "place_full": job.place.full,
    }


def _new_row(job: Job) -> dict[str, Any]:
    return {"of": job.import_id, **{f"new_{n}": value for n, value in _job_row(job).items()}}


def _job(row: "Record | None") -> Job | None:
    if row is None:
        return None
    return Job(
        **{name: row[name] for name in _SAME},
        outcomes={name: row[name] for name in _OUTCOMES},
        format=ImportFormat(row["format"]),
        status=ImportStatus(row["status"]),
        place=Place(
            row["place_offset"], row["place_line"], row["place_skipping"], row["place_full"]
        ),
    )
