"""A client that imports files and reads the outcome."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from markethall.inventory.imports.contract import (
    ImportFormat,
    Imports,
    ImportView,
    NewImport,
    NoteKind,
    RowNoteView,
    Upload,
)
from markethall.shared.kernel.pagination import PageQuery
from tests.inventory.conftest import STAFF, InventoryApp, no_key


@dataclass
class ImportClient:
    inventory_app: InventoryApp

    @property
    def imports(self) -> Imports:
        return self.inventory_app.container.imports()

    async def upload(self, data: bytes, *, size: int = 1000) -> Upload:
        """Upload a file in chunks of `size` bytes. A chunk may end inside a row."""

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(data), size):
                yield data[start : start + size]

        return await self.imports.upload(STAFF, chunks())

    async def start(self, data: bytes, **fields: Any) -> ImportView:
        upload = await self.upload(data, size=fields.pop("chunk_bytes", 65_536))
        usual = {"sha256": upload.sha256, "format": ImportFormat.CSV}
        command = NewImport.model_validate(usual | fields)
        return await self.imports.start_import(STAFF, upload, command, no_key())

    async def import_to_end(self, data: bytes | str, **fields: Any) -> ImportView:
        """Start an import, run it to its end, and return it."""
        data = data.encode() if isinstance(data, str) else data
        started = await self.start(data, **fields)
        await self.inventory_app.container.import_worker().process_next(started.import_id)
        return await self.imports.get_import(STAFF, started.import_id)

    async def notes(self, done: ImportView, kind: NoteKind) -> list[RowNoteView]:
        query = PageQuery(limit=100)
        page = await self.imports.list_row_notes(STAFF, done.import_id, kind, query)
        return list(page.items)

    async def errors(self, done: ImportView) -> list[RowNoteView]:
        return await self.notes(done, NoteKind.ERROR)

    async def export_families(self) -> bytes:
        return b"".join([chunk async for chunk in self.imports.export_families(STAFF)])

    async def export(self) -> bytes:
        return b"".join([chunk async for chunk in self.imports.export_products(STAFF)])


def counts(done: ImportView) -> tuple[int, int, int, int, int]:
    """Return (read, created, updated, unchanged, failed)."""
    rows = done.rows
    return rows.read, rows.created, rows.updated, rows.unchanged, rows.failed
