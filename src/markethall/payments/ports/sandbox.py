"""The port to the storage of the sandbox, a simulated provider with charges of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Protocol
from uuid import UUID


@dataclass(frozen=True)
class SandboxCharge:
    """A charge or authorization at the sandbox.

    An authorization is `authorized` until its last capture (`succeeded`) or its void (`voided`; or
    `succeeded` after a capture). It has `expires_at`; a plain charge has none. The status `closed`
    blocks an operation that the sandbox has not received: a request that arrives later takes no
    money.
    """

    operation_id: UUID
    status: Literal["succeeded", "failed", "requires_action", "authorized", "voided", "closed"]
    created_at: datetime
    amount: int = 0
    currency: str = ""
    method: str = ""
    failure_code: str | None = None
    captured: int = 0
    refunded: int = 0
    expires_at: datetime | None = None


@dataclass(frozen=True)
class SandboxCapture:
    """A capture of an authorization, or a void, which releases the uncaptured rest."""

    operation_id: UUID
    kind: Literal["capture", "void"]
    status: Literal["succeeded", "failed", "closed"]
    created_at: datetime
    charge_operation_id: UUID | None = None
    amount: int = 0
    currency: str = ""
    is_final: bool = False


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
    """Money that a charge, capture or refund of the sandbox has moved."""

    kind: Literal["charge", "capture", "refund"]
    operation_id: UUID
    created_at: datetime
    amount: int
    currency: str


@dataclass(frozen=True)
class SandboxSavedMethod:
    """A saved method at the sandbox. `method` is the payment method with which it was saved."""

    token: str
    customer: str
    method: str
    is_attached: bool = True


# new status -> the statuses from which a webhook may change a charge to it
EARLIER_CHARGE_STATUSES: Final[Mapping[str, tuple[str, ...]]] = {
    "requires_action": (),
    "failed": ("requires_action",),
    "succeeded": ("requires_action", "failed"),
    "authorized": ("requires_action", "failed"),
}


class SandboxLedger(Protocol):
    """The charges, captures and refunds of the sandbox provider."""

    async def record_charge(self, charge: SandboxCharge) -> SandboxCharge:
        """Insert the charge unless its id exists. Return the stored charge."""

    async def record_refund(self, refund: SandboxRefund) -> SandboxRefund:
        """Insert the refund unless its id exists. Return the stored refund.

        Store the refund as failed if it exceeds the rest of its charge that is not refunded, or if
        the charge has another currency.
        """

    async def record_capture(self, capture: SandboxCapture) -> SandboxCapture:
        """Insert the capture or void unless its id exists. Return the stored one.

        Store it as failed if its authorization has ended or has expired at `created_at`, if it
        exceeds the uncaptured rest, or if the authorization has another currency.
        """

    async def advance_charge(self, charge: SandboxCharge) -> None:
        """Insert the charge. If it exists, update its status and failure code.

        `requires_action` may change to `failed`, and both to `succeeded` or `authorized`; any
        other change is ignored.
        """

    async def get_charge(self, operation_id: UUID) -> SandboxCharge | None: ...
    async def get_capture(self, operation_id: UUID) -> SandboxCapture | None: ...
    async def get_refund(self, operation_id: UUID) -> SandboxRefund | None: ...
    async def record_saved_method(self, method: SandboxSavedMethod) -> None:
        """Insert the method unless its token exists."""

    async def get_saved_method(self, token: str) -> SandboxSavedMethod | None: ...
    async def detach_saved_method(self, token: str) -> None: ...
    async def list_charges(self) -> Sequence[SandboxCharge]:
        """Return all charges."""

    async def list_movements(
        self, start: datetime, end: datetime, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[SandboxMovement]:
        """Return succeeded movements that were created from `start` until before `end`.

        They are sorted by time and id, and begin after the position `after`.
        """
