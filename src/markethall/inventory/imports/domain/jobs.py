from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Self
from uuid import UUID

from markethall.inventory.imports.contract import (
    ImportFailure,
    ImportFormat,
    ImportNotFailed,
    ImportRowCounts,
    ImportStatus,
    ImportView,
    MissingProducts,
    NewImport,
    NoteKind,
    Upload,
)
from markethall.inventory.imports.domain.file_records import FilePosition, UnreadableFile


class RowOutcome(StrEnum):
    """The counts of an import. They have the names of the fields of ImportRowCounts."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    STOCK_CHANGED = "stock_changed"
    STOCK_SKIPPED = "stock_skipped"
    ARCHIVED = "archived"
    WARNINGS = "warnings"
    FAMILIES_CREATED = "families_created"
    FAMILIES_UPDATED = "families_updated"


# the number of notes of each kind that are stored for an import; later notes are dropped
MAX_STORED_NOTES: Final = 10_000


@dataclass
class ImportJob:
    """The state of an import. `token` identifies the lease of the worker that processes it."""

    import_id: UUID
    upload_id: UUID
    size: int
    format: ImportFormat
    dry_run: bool
    with_stock: bool
    missing: MissingProducts
    currency: str
    actor: str
    created_at: datetime
    fetch_images: bool = False
    status: ImportStatus = ImportStatus.WAITING
    position: FilePosition = field(default_factory=FilePosition)
    read: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    changed_fields: Mapping[str, int] = field(default_factory=dict)
    # the number of stored notes by kind
    note_counts: Mapping[str, int] = field(default_factory=dict)
    failure_code: str = ""
    failure_message: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    progressed_at: datetime | None = None
    token: UUID | None = None
    lease_until: datetime | None = None

    @classmethod
    def new(
        cls, import_id: UUID, upload: Upload, command: NewImport, actor: str, now: datetime
    ) -> Self:
        return cls(
            import_id=import_id,
            upload_id=upload.upload_id,
            size=upload.size,
            actor=actor,
            created_at=now,
            **command.model_dump(exclude={"sha256"}),
        )

    @property
    def fetches_images(self) -> bool:
        return self.fetch_images and not self.dry_run

    @property
    def is_fully_read(self) -> bool:
        return self.position.offset >= self.size

    def advance(
        self,
        position: FilePosition,
        read: int,
        outcomes: Counter[str],
        changed_fields: Counter[str],
        now: datetime,
    ) -> None:
        self.position = position
        self.read += read
        self.outcomes = {name: self.outcomes.get(name, 0) + outcomes[name] for name in RowOutcome}
        self.changed_fields = dict(Counter(self.changed_fields) + changed_fields)
        self.progressed_at = now
        if self.is_fully_read:
            self._finish(ImportStatus.DONE, now)

    def count_note(self, kind: NoteKind) -> int:
        return self.note_counts.get(kind, 0)

    def add_stored_notes(self, kind: NoteKind, count: int) -> None:
        self.note_counts = {**self.note_counts, kind.value: self.count_note(kind) + count}

    def mark_failed(self, reason: UnreadableFile, now: datetime) -> None:
        self.failure_code, self.failure_message = reason.code, reason.message
        self._finish(ImportStatus.FAILED, now)

    def retry(self) -> None:
        """Set the status to waiting, so that a worker continues. Raises ImportNotFailed."""
        if self.status != ImportStatus.FAILED:
            raise ImportNotFailed(status=self.status.value)
        self.status = ImportStatus.WAITING
        self.failure_code = self.failure_message = ""
        self.finished_at = None

    def to_view(self) -> ImportView:
        computed: dict[str, Any] = {
            "rows": ImportRowCounts(
                read=self.read, **{name: self.outcomes.get(name, 0) for name in RowOutcome}
            ),
            "percent": min(100, 100 * self.position.offset // self.size) if self.size else 100,
            "rows_per_second": self._rows_per_second(),
            "rows_left": self._estimated_rows_left(),
            "failure": ImportFailure(code=self.failure_code, message=self.failure_message)
            if self.failure_code
            else None,
        }
        return ImportView(**vars(self), **computed)

    def _finish(self, status: ImportStatus, now: datetime) -> None:
        self.status = status
        self.finished_at = now
        self.token = self.lease_until = None

    def _rows_per_second(self) -> int:
        if self.started_at is None or self.progressed_at is None:
            return 0
        seconds = (self.progressed_at - self.started_at).total_seconds()
        return round(self.read / seconds) if seconds > 0 else 0

    def _estimated_rows_left(self) -> int | None:
        if not self.read or not self.position.offset:
            return None
        return max(0, self.size - self.position.offset) * self.read // self.position.offset
