"""The port to the reads of the integrity checks of payments."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Protocol
from uuid import UUID

from markethall.payments.domain.integrity import ChargeSums, PaymentSums, ProviderCharge, WaitingRow


class PaymentIntegrityReads(Protocol):
    """Reads in pages. `after` is the key of the last row of the page before."""

    async def list_payment_sums(self, after: UUID | None, limit: int) -> Sequence[PaymentSums]: ...

    async def list_sandbox_charge_sums(
        self, after: UUID | None, limit: int
    ) -> Sequence[ChargeSums]:
        """Return the charges that were sent to the sandbox, by operation id."""

    async def get_sandbox_charges(
        self, operation_ids: Sequence[UUID]
    ) -> Mapping[UUID, ProviderCharge]:
        """Return the sandbox's own records by operation id. Ids that it does not know are missing.

        The sandbox stands for an external provider, so its tables are read by this method alone.
        """

    async def list_sandbox_charges(
        self, after: UUID | None, limit: int
    ) -> Sequence[ProviderCharge]:
        """Return the charges whose money the sandbox has, by operation id."""

    async def get_known_operations(self, operation_ids: Sequence[UUID]) -> AbstractSet[UUID]:
        """Return those of the ids for which there is an operation."""

    async def list_open_operations(
        self, created_before: datetime, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[WaitingRow]:
        """Return operations whose outcome is not known, by their creation."""

    async def list_overdue_payments(
        self, expired_before: datetime, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[WaitingRow]:
        """Return payable and authorized payments, by `expires_at`."""

    async def list_unapplied_webhooks(
        self, received_before: datetime, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[WaitingRow]:
        """Return pending webhook events whose operation exists, by their receipt."""

    async def list_money_after_end(
        self, settled_before: datetime, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[WaitingRow]:
        """Return ended payments whose money is not refunded, by their latest operation."""
