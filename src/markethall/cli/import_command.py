"""The command `markethall import`, which imports a file of products."""

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
    NewImport,
    RowErrorView,
)
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import ValidationFailed
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import PageQuery

_NDJSON_SUFFIXES: Final = frozenset({".ndjson", ".jsonl"})
_CHUNK_BYTES: Final = 256 * 1024
_MAX_SHOWN_ERRORS: Final = 20
_LIMIT_SETTING: Final = "MARKETHALL_MAX_IMPORT_BYTES"
# interval of the checks whether another process has finished the import
_RECHECK_SECONDS: Final = 1.0


class ImportSource(Protocol):
    """The source of an import: its bytes, and the command that starts the import."""

    def command(self, sha256: str) -> NewImport:
        """Raises ValidationFailed."""

    def chunks(self) -> AsyncIterator[bytes]: ...


@dataclass(frozen=True)
class ImportFile:
    """A file to import, with the options; it may have at most `max_bytes` bytes."""

    path: Path
    max_bytes: int
    currency: str = "EUR"
    dry_run: bool = False

    def command(self, sha256: str) -> NewImport:
        """Raises ValidationFailed."""
        is_ndjson = self.path.suffix.lower() in _NDJSON_SUFFIXES
        format_ = ImportFormat.NDJSON if is_ndjson else ImportFormat.CSV
        try:
            return NewImport(
                sha256=sha256, format=format_, dry_run=self.dry_run, currency=self.currency
            )
        except ValidationError:
            raise ValidationFailed("--currency must be an ISO 4217 code in capitals.") from None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Raises ValidationFailed."""
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
    """Final state of an import, and its first errors."""

    final_state: ImportView
    errors: tuple[RowErrorView, ...]

    @property
    def is_successful(self) -> bool:
        return self.final_state.status == ImportStatus.DONE and not self.final_state.rows.failed

    def to_lines(self) -> Iterator[str]:
        """Format the result for the terminal."""
        for error in self.errors:
            location = f"line {error.line}" + (f", {error.field}" if error.field else "")
            yield f"{location}: {error.message} ({error.code})"
        if self.final_state.failure:
            yield f"The file cannot be read: {self.final_state.failure.message}"
        rows = self.final_state.rows
        verb_prefix = "would be " if self.final_state.dry_run else ""
        yield (
            f"{rows.read} rows read: {rows.created} {verb_prefix}created,"
            f" {rows.updated} {verb_prefix}updated,"
            f" {rows.unchanged} unchanged, {rows.failed} failed."
        )


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
    page = await imports.list_row_errors(
        ctx, final_state.import_id, PageQuery(limit=_MAX_SHOWN_ERRORS)
    )
    return ImportResult(final_state, page.items)


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
    """Try to do the work until the import has ended.

    Another process may have claimed the import and may die; this process then takes over.
    """
    while True:
        await process(import_id)
        current = await imports.get_import(ctx, import_id)
        if current.finished_at:
            return current
        await asyncio.sleep(_RECHECK_SECONDS)
