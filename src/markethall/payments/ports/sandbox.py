"""The port to the storage of the sandbox, a simulated provider with charges of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Protocol
from uuid import UUID


@dataclass(frozen=True)
class SandboxCharge:
    """A charge at the sandbox.

    The status `closed` blocks an operation that the sandbox has not received: a request that
    arrives later takes no money.
    """

    operation_id: UUID
    status: Literal["succeeded", "failed", "requires_action", "closed"]
    created_at: datetime
    amount: int = 0
    currency: str = ""
    method: str = ""
    failure_code: str | None = None
    refunded: int = 0


@dataclass(frozen=True)
class SandboxRefund:
    operation_id: UUID
    status: Literal["succeeded", "failed", "closed"]
    created_at: datetime
    charge_operation_id: UUID | None = None
    amount: int = 0
    currency: str = ""


@dataclass(frozen=True)
class SandboxMovement:
    """Money that a charge or refund of the sandbox has moved."""

    kind: Literal["charge", "refund"]
    operation_id: UUID
    created_at: datetime
    amount: int
    currency: str


# new status -> the statuses from which a webhook may change a charge to it
EARLIER_CHARGE_STATUSES: Final[Mapping[str, tuple[str, ...]]] = {
    "requires_action": (),
    "failed": ("requires_action",),
    "succeeded": ("requires_action", "failed"),
}


class SandboxLedger(Protocol):
    """The charges and refunds of the sandbox provider."""

    async def record_charge(self, charge: SandboxCharge) -> SandboxCharge:
        """Insert the charge unless its id exists. Return the stored charge."""

    async def record_refund(self, refund: SandboxRefund) -> SandboxRefund:
        """Insert the refund unless its id exists. Return the stored refund.

        Store the refund as failed if it exceeds what is left to refund of its charge, or if the
        charge has another currency.
        """

    async def advance_charge(self, charge: SandboxCharge) -> None:
        """Insert the charge. If it exists, update its status and failure code.

        `requires_action` may change to `failed` or `succeeded`, and `failed` to `succeeded`; any
        other change is ignored.
        """

    async def get_charge(self, operation_id: UUID) -> SandboxCharge | None: ...
    async def get_refund(self, operation_id: UUID) -> SandboxRefund | None: ...
    async def list_charges(self) -> Sequence[SandboxCharge]:
        """Return all charges."""

    async def list_movements(
        self, start: datetime, end: datetime, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[SandboxMovement]:
        """Return succeeded charges and refunds created from `start` until before `end`.

        They are sorted by time and id, and begin after the position `after`.
        """
