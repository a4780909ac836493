"""The port to the reads of the integrity checks of payments."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Protocol
from uuid import UUID

from markethall.payments.domain.integrity import (
    ChargeSums,
    PaymentSums,
    ProviderCharge,
    Waiting,
    WaitingRow,
)


class PaymentIntegrityReads(Protocol):
    """Reads in pages. `after` is the key of the last row of the page before."""

    async def list_payment_sums(self, after: UUID | None, limit: int) -> Sequence[PaymentSums]: ...

    async def list_sandbox_charge_sums(
        self, after: UUID | None, limit: int
    ) -> Sequence[ChargeSums]:
        """Return the charges that were sent to the sandbox, sorted by operation id."""

    async def get_sandbox_charges(
        self, operation_ids: Sequence[UUID]
    ) -> Mapping[UUID, ProviderCharge]:
        """Return the sandbox's own records by operation id. Ids that it does not know are missing.

        The sandbox stands for an external provider, so its tables are read by this method alone.
        """

    async def list_sandbox_charges(
        self, after: UUID | None, limit: int
    ) -> Sequence[ProviderCharge]:
        """Return the charges whose money the sandbox has, sorted by operation id."""

    async def get_known_operations(self, operation_ids: Sequence[UUID]) -> AbstractSet[UUID]:
        """Return those of the ids for which there is an operation."""

    async def list_waiting(
        self, kind: Waiting, before: datetime, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[WaitingRow]:
        """Return rows of this kind that have waited since a time before `before`, by that time."""
