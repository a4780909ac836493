from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from markethall.inventory.catalogue.contract.fields import ProductStatus
from markethall.inventory.catalogue.contract.products import SkuTaken
from markethall.inventory.catalogue.domain.families import Family
from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.catalogue.domain.text_keys import sku_key
from markethall.inventory.catalogue.memory import find_rows
from markethall.inventory.imports.contract import ImportStatus, NoteKind
from markethall.inventory.imports.domain.file_records import RowNote
from markethall.inventory.imports.domain.jobs import ImportJob
from markethall.inventory.stock.domain import MAIN_WAREHOUSE, Stock
from markethall.inventory.stock.memory import MemoryStockStore, StockTables
from markethall.shared.persistence.memory import Table


class ImportTables(StockTables):
    def __init__(self) -> None:
        super().__init__()
        self.uploads: Table[UUID, tuple[UUID, datetime]] = Table()
        self.upload_parts: Table[tuple[UUID, int], bytes] = Table()
        self.import_jobs: Table[UUID, ImportJob] = Table()
        # key: import id, kind and number of the note
        self.row_notes: Table[tuple[UUID, NoteKind, int], RowNote] = Table()
        # key: import id; value: the products in the file, as product id -> family
        self.import_members: Table[UUID, Mapping[UUID, str]] = Table()


class MemoryImportStore(MemoryStockStore):
    _tables: ImportTables

    async def create_upload(self, upload_id: UUID, now: datetime) -> None:
        self._tables.uploads.put(upload_id, (upload_id, now))

    async def add_upload_part(self, upload_id: UUID, number: int, data: bytes) -> None:
        self._tables.upload_parts.put((upload_id, number), data)

    async def get_upload_part(self, upload_id: UUID, number: int) -> bytes | None:
        return self._tables.upload_parts.get((upload_id, number))

    async def delete_upload_if_unused(self, upload_id: UUID) -> None:
        self._delete_upload(upload_id, None)

    def _delete_upload(self, upload_id: UUID, failed_before: datetime | None) -> None:
        is_needed = self._is_needed(upload_id, failed_before)
        if is_needed or not self._tables.uploads.remove(upload_id):
            return
        number = 0
        while self._tables.upload_parts.remove((upload_id, number)):
            number += 1

    async def delete_stale_uploads(self, before: datetime, failed_before: datetime) -> None:
        for upload_id, _ in self._tables.uploads.where(lambda upload: upload[1] < before):
            self._delete_upload(upload_id, failed_before)

    async def delete_old_import_jobs(self, before: datetime) -> None:
        for job in self._tables.import_jobs.where(lambda job: _finished_before(job, before)):
            self._tables.import_jobs.remove(job.import_id)
            self._tables.import_members.remove(job.import_id)
            for kind in NoteKind:
                for number in range(1, job.count_note(kind) + 1):
                    self._tables.row_notes.remove((job.import_id, kind, number))

    async def add_import_job(self, job: ImportJob) -> bool:
        return self._tables.import_jobs.add(job.import_id, job)

    async def get_import_job(self, import_id: UUID) -> ImportJob | None:
        return self._tables.import_jobs.get(import_id)

    # transactions in memory run one at a time, so no row needs a lock
    get_import_job_for_update = get_import_job

    async def save_import_job(self, job: ImportJob) -> None:
        self._tables.import_jobs.put(job.import_id, job)

    async def lease_import_job(
        self, token: UUID, now: datetime, lease_until: datetime, import_id: UUID | None
    ) -> ImportJob | None:
        free = self._tables.import_jobs.where(
            lambda job: (
                job.finished_at is None
                and (job.lease_until is None or job.lease_until < now)
                and import_id in {None, job.import_id}
            )
        )
        if not free:
            return None
        job = min(free, key=lambda job: (job.created_at, job.import_id))
        job.status, job.token, job.lease_until = ImportStatus.RUNNING, token, lease_until
        job.started_at = job.started_at or now
        self._tables.import_jobs.put(job.import_id, job)
        return job

    async def advance_import_job(self, job: ImportJob, token: UUID, expected_offset: int) -> bool:
        stored = self._tables.import_jobs.get(job.import_id)
        if stored is None or (stored.token, stored.position.offset) != (token, expected_offset):
            return False
        self._tables.import_jobs.put(job.import_id, job)
        return True

    async def release_import_lease(self, import_id: UUID, token: UUID) -> None:
        job = self._tables.import_jobs.get(import_id)
        if job is not None and job.token == token:
            job.token = job.lease_until = None
            self._tables.import_jobs.put(import_id, job)

    async def list_row_notes(
        self, import_id: UUID, kind: NoteKind, after: int, limit: int
    ) -> Sequence[tuple[int, RowNote]]:
        numbers = range(after + 1, after + 1 + limit)
        found = (
            (number, self._tables.row_notes.get((import_id, kind, number))) for number in numbers
        )
        return [(number, note) for number, note in found if note is not None]

    async def add_row_notes(
        self, import_id: UUID, kind: NoteKind, first: int, notes: Sequence[RowNote]
    ) -> None:
        for number, note in enumerate(notes, first):
            self._tables.row_notes.put((import_id, kind, number), note)

    async def get_products_for_update(
        self, skus: Collection[str], families: Collection[str]
    ) -> Sequence[Product]:
        found = set(find_rows(self._tables.product_ids_by_sku, skus))
        if families:
            members = self._tables.products.where(lambda product: product.family in families)
            found.update(product.product_id for product in members)
        return find_rows(self._tables.products, sorted(found))

    async def list_families_by_sku(self, skus: Collection[str]) -> Mapping[str, str]:
        products = {
            product.sku: product for product in await self.get_products_for_update(skus, ())
        }
        return {sku_key(sku): p.family for sku, p in products.items() if p.family is not None}

    async def get_families_for_update(self, labels: Collection[str]) -> Sequence[Family]:
        return find_rows(self._tables.families, sorted(labels))

    async def save_families(self, families: Sequence[Family]) -> None:
        for family in families:
            await self.save_family(family)
            await self.add_slug(family.slug, family.family_id)

    async def list_families(self, after: str, limit: int) -> Sequence[Family]:
        found = self._tables.families.where(lambda family: family.key > after)
        return sorted(found, key=lambda family: family.key)[:limit]

    async def add_import_members(self, import_id: UUID, family_by_id: Mapping[UUID, str]) -> None:
        known = self._tables.import_members.get(import_id) or {}
        self._tables.import_members.put(import_id, {**known, **family_by_id})

    async def list_missing_products_for_update(self, import_id: UUID) -> Sequence[Product]:
        members = self._tables.import_members.get(import_id) or {}
        families = set(members.values())
        missing = self._tables.products.where(
            lambda product: (
                product.family in families
                and product.product_id not in members
                and product.status != ProductStatus.ARCHIVED
            )
        )
        return sorted(missing, key=lambda product: product.product_id)

    async def delete_import_members(self, import_id: UUID) -> None:
        self._tables.import_members.remove(import_id)

    async def get_main_stock_for_update(
        self, product_ids: Collection[UUID]
    ) -> Mapping[UUID, Stock]:
        keys = [(product_id, MAIN_WAREHOUSE) for product_id in product_ids]
        return {stock.product_id: stock for stock in find_rows(self._tables.stock, keys)}

    async def list_products_with_stock(
        self, after: UUID | None, limit: int
    ) -> Sequence[tuple[Product, int]]:
        products = self._tables.products.where(
            lambda product: after is None or product.product_id > after
        )
        products.sort(key=lambda product: product.product_id)
        stock_by_product = await self.get_main_stock_for_update(
            [product.product_id for product in products[:limit]]
        )
        return [
            (product, stock_by_product[product.product_id].on_hand) for product in products[:limit]
        ]

    async def write_products(
        self, new_products: Sequence[Product], changed_products: Sequence[Product]
    ) -> bool:
        try:
            for product in changed_products:
                await self.save_product(product)
        except SkuTaken:
            return False
        added = [await self.add_product(product) for product in new_products]
        for product in new_products:
            await self.ensure_main_stock_row(product.product_id)
        return all(added)

    def _is_needed(self, upload_id: UUID, failed_before: datetime | None) -> bool:
        return bool(
            self._tables.import_jobs.where(
                lambda job: (
                    job.upload_id == upload_id
                    and job.status != ImportStatus.DONE
                    and not _finished_before(job, failed_before)
                )
            )
        )


def _finished_before(job: ImportJob, before: datetime | None) -> bool:
    return bool(before and job.finished_at and job.finished_at < before)
