import asyncio
import json
from collections.abc import Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg

from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.catalogue.domain.text_keys import sku_key
from markethall.inventory.catalogue.sql.store import product_from_row, product_to_row
from markethall.inventory.imports.contract import (
    ImportFormat,
    ImportStatus,
    MissingProducts,
    NoteKind,
)
from markethall.inventory.imports.domain.file_records import FilePosition, RowNote
from markethall.inventory.imports.domain.jobs import ImportJob, RowOutcome
from markethall.inventory.imports.sql import statements
from markethall.inventory.imports.sql.tables import import_jobs
from markethall.inventory.stock.domain import MAIN_WAREHOUSE, Stock
from markethall.shared.composition.sql import SqlUnitOfWork
from markethall.shared.persistence.postgres import Connection, Statement

if TYPE_CHECKING:
    from asyncpg.protocol import Record

# A chunk is small, because building it blocks the event loop, here for a few milliseconds. It is
# large enough that the round trip per chunk does not matter.
_CHUNK_ROWS: Final = 250
_STAGING_COLUMNS: Final = [*statements.STAGED_COLUMNS, "chunk_number", "row_number"]

StagedRecord = list[Any]


class ProductStaging:
    """The bulk write of many products in one transaction. An instance can be used only once.

    The products are copied into a staging table, then written with one statement. They are written
    in chunks: the process builds the rows of a chunk while the database writes the previous chunk.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._words_to_add: set[str] = set()
        self._write_task: asyncio.Task[int] | None = None
        self._added_count = 0

    async def write(
        self, new_products: Sequence[Product], changed_products: Sequence[Product]
    ) -> int:
        """Write the products. Return the number of products that were inserted.

        A new product is skipped if another product has its SKU.
        """
        # sorted by the unique key, because transactions that insert the same SKUs in different
        # orders could deadlock
        new_products = sorted(new_products, key=lambda product: sku_key(product.sku))
        try:
            await self._start_write(self._create_table())
            for chunk_number, (products, are_new) in enumerate(
                _chunks(new_products, changed_products)
            ):
                records = self._build_records(products, chunk_number)
                await self._wait_for_write()
                await self._connection.copy_rows(
                    statements.STAGING_TABLE, _STAGING_COLUMNS, records
                )
                await self._start_write(self._write_chunk(chunk_number, are_new=are_new))
            await self._wait_for_write()
        finally:
            await self._cancel_write()
        await self._connection.execute(
            statements.ADD_NEW_WORDS, vocabulary=list(self._words_to_add)
        )
        return self._added_count

    def _build_records(self, products: Sequence[Product], chunk_number: int) -> list[StagedRecord]:
        records = []
        for row_number, product in enumerate(products):
            row = product_to_row(product)
            self._words_to_add.update(row["vocabulary"])
            records.append(
                [*(row[name] for name in statements.STAGED_COLUMNS), chunk_number, row_number]
            )
        return records

    async def _create_table(self) -> int:
        await self._connection.fetch_value(statements.CREATE_STAGING_TABLE)
        return 0

    async def _write_chunk(self, chunk_number: int, *, are_new: bool) -> int:
        """Write a chunk from the staging table. Return the number of inserted products."""
        if are_new:
            return await self._connection.execute(
                statements.ADD_STAGED_PRODUCTS,
                chunk_number=chunk_number,
                warehouse_id=MAIN_WAREHOUSE,
            )
        await self._connection.execute(statements.SAVE_STAGED_PRODUCTS, chunk_number=chunk_number)
        return 0

    async def _start_write(self, write: Coroutine[Any, Any, int]) -> None:
        self._write_task = asyncio.create_task(write)
        # let the task send its statement before this task builds the next chunk
        await asyncio.sleep(0)

    async def _wait_for_write(self) -> None:
        if self._write_task:
            self._added_count += await self._write_task
            self._write_task = None

    async def _cancel_write(self) -> None:
        """Stop the write after an error, and wait until its task no longer uses the connection."""
        if self._write_task:
            self._write_task.cancel()
            # also retrieves the exception, because asyncio logs one that is never retrieved
            await asyncio.gather(self._write_task, return_exceptions=True)


def _chunks(
    new_products: Sequence[Product], changed_products: Sequence[Product]
) -> Iterator[tuple[Sequence[Product], bool]]:
    for products in (changed_products, new_products):
        for start in range(0, len(products), _CHUNK_ROWS):
            yield products[start : start + _CHUNK_ROWS], products is new_products


class SqlImportStore(SqlUnitOfWork):
    # Uploads

    async def create_upload(self, upload_id: UUID, now: datetime) -> None:
        await self._connection.execute(
            statements.CREATE_UPLOAD, upload_id=upload_id, created_at=now
        )

    async def add_upload_part(self, upload_id: UUID, number: int, data: bytes) -> None:
        await self._connection.execute(
            statements.ADD_UPLOAD_PART, upload_id=upload_id, number=number, data=data
        )

    async def get_upload_part(self, upload_id: UUID, number: int) -> bytes | None:
        data: bytes | None = await self._connection.fetch_value(
            statements.GET_UPLOAD_PART, upload_id=upload_id, number=number
        )
        return data

    async def delete_upload_if_unused(self, upload_id: UUID) -> None:
        await self._connection.execute(statements.DELETE_UPLOAD_IF_UNUSED, upload_id=upload_id)

    async def delete_stale_uploads(self, before: datetime, failed_before: datetime) -> None:
        await self._connection.execute(
            statements.DELETE_STALE_UPLOADS, before=before, failed_before=failed_before
        )

    async def delete_old_import_jobs(self, before: datetime) -> None:
        await self._connection.execute(statements.DELETE_OLD_IMPORT_JOBS, before=before)

    # Jobs

    async def add_import_job(self, job: ImportJob) -> bool:
        return await self._has_effect(statements.ADD_IMPORT_JOB, **_job_to_row(job))

    async def get_import_job(self, import_id: UUID) -> ImportJob | None:
        return await self._fetch_job(statements.GET_IMPORT_JOB, import_id=import_id)

    async def get_import_job_for_update(self, import_id: UUID) -> ImportJob | None:
        return await self._fetch_job(statements.GET_IMPORT_JOB_FOR_UPDATE, import_id=import_id)

    async def save_import_job(self, job: ImportJob) -> None:
        await self._connection.execute(statements.SAVE_IMPORT_JOB, **_job_update_values(job))

    async def lease_import_job(
        self, token: UUID, now: datetime, lease_until: datetime, import_id: UUID | None
    ) -> ImportJob | None:
        return await self._fetch_job(
            statements.LEASE_IMPORT_JOB,
            token=token,
            now=now,
            lease_until=lease_until,
            import_id=import_id,
        )

    async def _fetch_job(self, statement: Statement, **values: Any) -> ImportJob | None:
        row = await self._connection.fetch_one(statement, **values)
        return _job_from_row(row) if row else None

    async def advance_import_job(self, job: ImportJob, token: UUID, expected_offset: int) -> bool:
        return await self._has_effect(
            statements.ADVANCE_IMPORT_JOB,
            **_job_update_values(job),
            token=token,
            expected_offset=expected_offset,
        )

    async def release_import_lease(self, import_id: UUID, token: UUID) -> None:
        await self._connection.execute(
            statements.RELEASE_IMPORT_LEASE, import_id=import_id, token=token
        )

    # Notes

    async def list_row_notes(
        self, import_id: UUID, kind: NoteKind, after: int, limit: int
    ) -> Sequence[tuple[int, RowNote]]:
        rows = await self._connection.fetch_all(
            statements.LIST_ROW_NOTES,
            import_id=import_id,
            kind=kind.value,
            after=after,
            limit=limit,
        )
        names = ("line", "field", "code", "message")
        return [(row["number"], RowNote(*(row[name] for name in names))) for row in rows]

    async def add_row_notes(
        self, import_id: UUID, kind: NoteKind, first: int, notes: Sequence[RowNote]
    ) -> None:
        rows = [
            {"import_id": import_id, "kind": kind.value, "number": number, **vars(note)}
            for number, note in enumerate(notes, first)
        ]
        await self._connection.execute_many(statements.ADD_ROW_NOTE, rows)

    # Products

    async def get_products_for_update(
        self, skus: Collection[str], families: Collection[str]
    ) -> Sequence[Product]:
        rows = await self._connection.fetch_all(
            statements.GET_PRODUCTS_FOR_UPDATE, skus=list(skus), families=list(families)
        )
        return [product_from_row(row) for row in rows]

    async def list_families_by_sku(self, skus: Collection[str]) -> Mapping[str, str]:
        rows = await self._connection.fetch_all(statements.LIST_FAMILIES_BY_SKU, skus=list(skus))
        return {row["sku_key"]: row["family"] for row in rows}

    async def add_import_members(self, import_id: UUID, family_by_id: Mapping[UUID, str]) -> None:
        await self._connection.execute(
            statements.ADD_IMPORT_MEMBERS,
            import_id=import_id,
            product_ids=list(family_by_id),
            families=list(family_by_id.values()),
        )

    async def list_missing_products_for_update(self, import_id: UUID) -> Sequence[Product]:
        rows = await self._connection.fetch_all(
            statements.LIST_MISSING_PRODUCTS_FOR_UPDATE, import_id=import_id
        )
        return [product_from_row(row) for row in rows]

    async def delete_import_members(self, import_id: UUID) -> None:
        await self._connection.execute(statements.DELETE_IMPORT_MEMBERS, import_id=import_id)

    async def get_main_stock_for_update(
        self, product_ids: Collection[UUID]
    ) -> Mapping[UUID, Stock]:
        rows = await self._connection.fetch_all(
            statements.GET_STOCK_FOR_UPDATE, product_ids=list(product_ids)
        )
        names = ("product_id", "warehouse_id", "on_hand", "reserved", "backorder")
        return {
            row["product_id"]: Stock(**{name: row[name] for name in names})
            for row in rows
            if row["warehouse_id"] == MAIN_WAREHOUSE
        }

    async def list_products_with_stock(
        self, after: UUID | None, limit: int
    ) -> Sequence[tuple[Product, int]]:
        rows = await self._connection.fetch_all(
            statements.LIST_PRODUCTS_WITH_STOCK,
            after=after,
            limit=limit,
            warehouse_id=MAIN_WAREHOUSE,
        )
        return [(product_from_row(row), row["on_hand"]) for row in rows]

    async def write_products(
        self, new_products: Sequence[Product], changed_products: Sequence[Product]
    ) -> bool:
        try:
            added = await ProductStaging(self._connection).write(new_products, changed_products)
        except asyncpg.UniqueViolationError:
            return False
        return added == len(new_products)


# the fields of a job that have a column of the same name
_FIELDS: Final = [field.name for field in fields(ImportJob) if field.name in import_jobs.c]
_JSON_COLUMNS: Final = ("changed_fields", "note_counts")


def _job_to_row(job: ImportJob) -> dict[str, Any]:
    return {
        **vars(job),
        **{name: job.outcomes.get(name, 0) for name in RowOutcome},
        **{name: json.dumps(dict(getattr(job, name))) for name in _JSON_COLUMNS},
        "position_offset": job.position.offset,
        "position_line": job.position.line,
        "in_oversized_row": job.position.in_oversized_row,
        "truncated_handle": job.position.truncated_handle,
    }


def _job_update_values(job: ImportJob) -> dict[str, Any]:
    return {
        "import_id": job.import_id,
        **{f"new_{n}": value for n, value in _job_to_row(job).items()},
    }


def _job_from_row(row: "Record") -> ImportJob:
    names = ("position_offset", "position_line", "in_oversized_row", "truncated_handle")
    converted: dict[str, Any] = {
        **{name: json.loads(row[name]) for name in _JSON_COLUMNS},
        "outcomes": {name: row[name] for name in RowOutcome},
        "format": ImportFormat(row["format"]),
        "status": ImportStatus(row["status"]),
        "missing": MissingProducts(row["missing"]),
        "position": FilePosition(*(row[name] for name in names)),
    }
    return ImportJob(**{name: row[name] for name in _FIELDS} | converted)
