"""What imports and exports need from the outside."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from markethall.inventory.domain import Change, Item, Stock
from markethall.inventory.domain.importing import Flaw, Job


class ImportReads(Protocol):
    """Reads. Each is one statement that takes no lock."""

    async def job(self, import_id: UUID) -> Job | None: ...

    async def flaws(self, import_id: UUID, after: int, limit: int) -> Sequence[tuple[int, Flaw]]:
        """With their numbers, in that order, later than `after`."""

    async def part(self, upload_id: UUID, number: int) -> bytes | None: ...

    async def items_after(self, after: UUID | None, limit: int) -> Sequence[tuple[Item, int]]:
        """With what is on hand in the main warehouse, in the order of their ids."""


class ImportStore(ImportReads, Protocol):
    """Reads and writes of one transaction."""

    async def open_upload(self, upload_id: UUID, now: datetime) -> None: ...

    async def add_part(self, upload_id: UUID, number: int, data: bytes) -> None: ...

    async def drop_upload(self, upload_id: UUID) -> None:
        """With its parts; not while an import is to read it."""

    async def drop_stale_uploads(self, before: datetime, failed_before: datetime) -> None:
        """Those that no import is to read; one that failed before that time is not."""

    async def drop_old_jobs(self, before: datetime) -> None:
        """Those that had ended by then, with their errors."""

    async def add_job(self, job: Job) -> bool:
        """False when its id is taken."""

    async def lock_job(self, import_id: UUID) -> Job | None:
        """Locked until the end of the transaction."""

    async def save_job(self, job: Job) -> None: ...

    async def take_job(
        self, token: UUID, now: datetime, until: datetime, import_id: UUID | None
    ) -> Job | None:
        """The oldest that nobody works on is ours until then; or this one."""

    async def advance_job(self, job: Job, token: UUID, offset: int) -> bool:
        """Save it; False when somebody else has taken it meanwhile, or it stands elsewhere than
        at this offset.
        """

    async def hand_back_job(self, import_id: UUID, token: UUID) -> None:
        """Whoever takes the next one may take this at once."""

    async def note_flaws(self, import_id: UUID, first: int, flaws: Sequence[Flaw]) -> None:
        """Numbered from `first` on."""

    async def known_items(self, skus: Collection[str]) -> Sequence[Item]:
        """By their skus in small letters; locked, in the order of their ids."""

    async def main_shelves(self, product_ids: Collection[UUID]) -> Mapping[UUID, Stock]:
        """In the main warehouse; locked with all their others, in the order of product ids and
        then of warehouse ids.
        """

    async def put_items(self, fresh: Sequence[Item], changed: Sequence[Item]) -> bool:
        """False when a sku of the fresh ones is taken meanwhile: nothing may be kept then."""

    async def move_all(self, changes: Sequence[Change]) -> None:
        """Movements on shelves of locked products, each of which leaves enough on hand."""
