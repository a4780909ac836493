import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self
from uuid import UUID

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from markethall.inventory.imports.contract import (
    ImportFormat,
    Imports,
    ImportStatus,
    ImportView,
    MissingProducts,
    NewImport,
    NoteKind,
    RowNoteView,
)
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import ValidationFailed
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import PageQuery

_NDJSON_SUFFIXES: Final = frozenset({".ndjson", ".jsonl"})
_CHUNK_BYTES: Final = 256 * 1024
_MAX_SHOWN_NOTES: Final = 20
_LIMIT_SETTING: Final = "MARKETHALL_MAX_IMPORT_BYTES"
# pause between two checks whether the import has ended
_RECHECK_SECONDS: Final = 1.0


# the rows that describe no product
_OTHER_ROWS: Final = {
    ImportFormat.SHOPIFY: "image row",
    ImportFormat.WOOCOMMERCE: "variable product",
}


class ImportSource(Protocol):
    """The source of an import: its bytes, and the command that starts the import."""

    def command(self, sha256: str) -> NewImport:
        """Return the command for a source with this hash. Raises ValidationFailed."""

    def chunks(self) -> AsyncIterator[bytes]: ...


@dataclass(frozen=True)
class ImportFile:
    """A file to import, with the options; it may have at most `max_bytes` bytes."""

    path: Path
    max_bytes: int
    currency: str = "EUR"
    dry_run: bool = False
    with_stock: bool = False
    archive_missing: bool = False
    fetch_images: bool = False

    def command(self, sha256: str) -> NewImport:
        """Return the command for a file with this hash. Raises ValidationFailed."""
        is_ndjson = self.path.suffix.lower() in _NDJSON_SUFFIXES
        format_ = ImportFormat.NDJSON if is_ndjson else ImportFormat.CSV
        try:
            return NewImport(
                sha256=sha256,
                format=format_,
                dry_run=self.dry_run,
                with_stock=self.with_stock,
                missing=(MissingProducts.ARCHIVE if self.archive_missing else MissingProducts.KEEP),
                currency=self.currency,
                fetch_images=self.fetch_images,
            )
        except ValidationError:
            raise ValidationFailed("--currency must be an ISO 4217 code in capitals.") from None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the content of the file. Raises ValidationFailed if it is too large."""
        size = 0
        with self.path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                size += len(chunk)
                if size > self.max_bytes:
                    raise ValidationFailed(
                        f"The file has more than {self.max_bytes} bytes: {_LIMIT_SETTING}."
                    )
                yield chunk


@dataclass(frozen=True)
class ImportResult:
    """The final state of an import, with its first errors, warnings and changes."""

    final_state: ImportView
    errors: tuple[RowNoteView, ...]
    warnings: tuple[RowNoteView, ...] = ()
    changes: tuple[RowNoteView, ...] = ()

    @property
    def is_successful(self) -> bool:
        return self.final_state.status == ImportStatus.DONE and not self.final_state.rows.failed

    def to_lines(self) -> Iterator[str]:
        """Format the result for the terminal."""
        for change in self.changes:
            yield f"line {change.line}, {change.field}: {change.message}"
        for warning in self.warnings:
            yield f"line {warning.line}, {warning.field}: warning: {warning.message}"
        for error in self.errors:
            location = f"line {error.line}" + (f", {error.field}" if error.field else "")
            yield f"{location}: {error.message} ({error.code})"
        if self.final_state.failure:
            yield f"The file cannot be read: {self.final_state.failure.message}"
        yield from _summary_lines(self.final_state)


def _summary_lines(state: ImportView) -> Iterator[str]:
    rows = state.rows
    products = rows.created + rows.updated + rows.unchanged
    parts = [_count(products, "product")]
    if others := rows.read - products - rows.failed:
        parts.append(_count(others, _OTHER_ROWS.get(state.format, "family row")))
    parts.append(f"{rows.failed} failed")
    prefix = "would be " if state.dry_run else ""
    yield (
        f"{_count(rows.read, 'row')}: {', '.join(parts)}. Products: {rows.created} {prefix}created,"
        f" {rows.updated} {prefix}updated, {rows.unchanged} unchanged."
    )
    if rows.families_created or rows.families_updated:
        yield (
            f"Families: {rows.families_created} {prefix}created,"
            f" {rows.families_updated} {prefix}updated."
        )
    if state.changed_fields:
        fields = [f"{name} ({number})" for name, number in sorted(state.changed_fields.items())]
        yield f"Fields of existing products {prefix}changed: {', '.join(fields)}."
    if rows.warnings:
        yield f"{_count(rows.warnings, 'warning')}."
    if rows.archived:
        yield f"{_count(rows.archived, 'product')} that the file does not have {prefix}archived."
    if state.missing == MissingProducts.ARCHIVE and rows.failed:
        yield "No missing product is archived, because a row failed."
    if rows.stock_skipped:
        yield (
            f"The stock of {_count(rows.stock_skipped, 'existing product')} differs from the file"
            " and is left as it is; --with-stock sets it."
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class ProgressBar:
    """A progress bar with rows and rate. It prints nothing if there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[rows]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("importing", total=100, rows="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, progress: ImportView) -> None:
        remaining_text = (
            "" if progress.rows_left is None else f", about {progress.rows_left:,} left"
        )
        rows = f"{progress.rows.read:,} rows, {progress.rows_per_second:,}/s{remaining_text}"
        self._progress.update(self._task, completed=progress.percent, rows=rows)


async def run_import(
    source: ImportSource,
    imports: Imports,
    process: Callable[[UUID], Awaitable[Any]],
    ctx: CallContext,
    on_progress: Callable[[ImportView], None],
) -> ImportResult:
    """Start an import and wait for its end.

    This process does the work, unless a running server claims the import first.

    Raises ValidationFailed, Unavailable.
    """
    # called only to raise an error for invalid options before the upload; the hash of the file is
    # not known yet
    source.command("")
    upload = await imports.upload(ctx, source.chunks())
    command, attempt = source.command(upload.sha256), IdempotentCommand.without_key(new_id())
    started = await imports.start_import(ctx, upload, command, attempt)
    tasks = [
        asyncio.create_task(_poll_progress(started, imports, ctx, on_progress)),
        asyncio.create_task(_process_until_done(started.import_id, imports, process, ctx)),
    ]
    try:
        final_state, _ = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    errors, warnings, changes = [
        await _first_notes(imports, ctx, final_state, kind)
        for kind in (NoteKind.ERROR, NoteKind.WARNING, NoteKind.CHANGE)
    ]
    return ImportResult(final_state, errors, warnings, changes)


async def _first_notes(
    imports: Imports, ctx: CallContext, state: ImportView, kind: NoteKind
) -> tuple[RowNoteView, ...]:
    query = PageQuery(limit=_MAX_SHOWN_NOTES)
    return (await imports.list_row_notes(ctx, state.import_id, kind, query)).items


async def _poll_progress(
    started: ImportView,
    imports: Imports,
    ctx: CallContext,
    on_progress: Callable[[ImportView], None],
) -> ImportView:
    """Call `on_progress` until the import has ended, then return its final state."""
    final_state = started
    async for progress in await imports.watch_import(ctx, started.import_id):
        if progress is not None:
            final_state = progress
            on_progress(progress)
    return final_state


async def _process_until_done(
    import_id: UUID, imports: Imports, process: Callable[[UUID], Awaitable[Any]], ctx: CallContext
) -> ImportView:
    """Call `process` repeatedly until the import has ended.

    While another process works on the import, `process` does nothing. If that process dies, a later
    call of `process` takes over the import.
    """
    while True:
        await process(import_id)
        current = await imports.get_import(ctx, import_id)
        if current.finished_at:
            return current
        await asyncio.sleep(_RECHECK_SECONDS)
