"""`markethall import`: a file into the catalogue, from the command line."""

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

from markethall.inventory.contract import (
    Import,
    ImportFormat,
    Imports,
    ImportStatus,
    NewImport,
    RowError,
)
from markethall.shared.call import Call
from markethall.shared.errors import Invalid
from markethall.shared.idempotency import Attempt
from markethall.shared.ids import new_id
from markethall.shared.pages import PageQuery

_LINES: Final = frozenset({".ndjson", ".jsonl"})
_CHUNK: Final = 256 * 1024
_SHOWN: Final = 20
_SETTING: Final = "MARKETHALL_IMPORT_LIMIT"
# seconds until it is looked whether somebody still works on an import that another one took
_AGAIN: Final = 1.0


class Source(Protocol):
    """What is to be brought, and how."""

    def command(self, sha256: str) -> NewImport:
        """Raises Invalid."""

    def chunks(self) -> AsyncIterator[bytes]: ...


@dataclass(frozen=True)
class Load:
    """A file of at most `limit` bytes, and how it is to be brought."""

    path: Path
    limit: int
    currency: str = "EUR"
    dry_run: bool = False

    def command(self, sha256: str) -> NewImport:
        """Raises Invalid."""
        lines = self.path.suffix.lower() in _LINES
        format_ = ImportFormat.NDJSON if lines else ImportFormat.CSV
        try:
            return NewImport(
                sha256=sha256, format=format_, dry_run=self.dry_run, currency=self.currency
            )
        except ValidationError:
            raise Invalid("--currency must be an ISO 4217 code in capitals.") from None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Raises Invalid."""
        size = 0
        with self.path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                size += len(chunk)
                if size > self.limit:
                    raise Invalid(f"The file has more than {self.limit} bytes: {_SETTING}.")
                yield chunk


@dataclass(frozen=True)
class Loaded:
    """How it ended, and the first errors."""

    done: Import
    errors: tuple[RowError, ...]

    @property
    def is_good(self) -> bool:
        return self.done.status == ImportStatus.DONE and not self.done.rows.failed

    def lines(self) -> Iterator[str]:
        """For people."""
        for error in self.errors:
            where = f"line {error.line}" + (f", {error.field}" if error.field else "")
            yield f"{where}: {error.message} ({error.code})"
        if self.done.failure:
            yield f"The file cannot be read: {self.done.failure.message}"
        rows = self.done.rows
        would = "would be " if self.done.dry_run else ""
        yield (
            f"{rows.read} rows read: {rows.created} {would}created, {rows.updated} {would}updated,"
            f" {rows.unchanged} unchanged, {rows.failed} failed."
        )


class Meter:
    """A bar with rows, rate and rows left; nothing where nobody looks."""

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

    def show(self, seen: Import) -> None:
        left = "" if seen.rows_left is None else f", about {seen.rows_left:,} left"
        rows = f"{seen.rows.read:,} rows, {seen.rows_per_second:,}/s{left}"
        self._progress.update(self._task, completed=seen.percent, rows=rows)


async def bring(
    load: Source,
    imports: Imports,
    work: Callable[[UUID], Awaitable[Any]],
    call: Call,
    show: Callable[[Import], None],
) -> Loaded:
    """To its end, here or in a server that was faster to take it. Raises Invalid, Unavailable."""
    load.command("")
    upload = await imports.upload(call, load.chunks())
    command, attempt = load.command(upload.sha256), Attempt.keyless(new_id())
    started = await imports.start(call, upload, command, attempt)
    both = [
        asyncio.create_task(_watched(started, imports, call, show)),
        asyncio.create_task(_driven(started.import_id, imports, work, call)),
    ]
    try:
        done, _ = await asyncio.gather(*both)
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
    page = await imports.errors(call, done.import_id, PageQuery(limit=_SHOWN))
    return Loaded(done, page.items)


async def _watched(
    started: Import, imports: Imports, call: Call, show: Callable[[Import], None]
) -> Import:
    """As it is in the end."""
    done = started
    async for seen in await imports.follow(call, started.import_id):
        if seen is not None:
            done = seen
            show(seen)
    return done


async def _driven(
    import_id: UUID, imports: Imports, work: Callable[[UUID], Awaitable[Any]], call: Call
) -> Import:
    """Whoever was faster to take it may die: it is taken until it has ended."""
    while True:
        await work(import_id)
        seen = await imports.imported(call, import_id)
        if seen.finished_at:
            return seen
        await asyncio.sleep(_AGAIN)
