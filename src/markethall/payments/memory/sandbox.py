"""The in-memory ledger of the sandbox."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Literal
from uuid import UUID

from markethall.payments.memory.store import MemoryPaymentStore
from markethall.payments.memory.tables import Tables
from markethall.payments.ports import (
    EARLIER_CHARGE_STATUSES,
    SandboxCapture,
    SandboxCharge,
    SandboxMovement,
    SandboxRefund,
    SandboxSavedMethod,
)
from markethall.shared.composition.memory import MemoryDatabase


class MemorySandboxLedger:
    """The charges, captures and refunds of the sandbox.

    Their transactions are separate from those of payments.
    """

    def __init__(self, database: "MemoryDatabase[Tables, MemoryPaymentStore]") -> None:
        self._database = database

    async def record_charge(self, charge: SandboxCharge) -> SandboxCharge:
        async with self._database.write_transaction() as tables:
            tables.sandbox_charges.add(charge.operation_id, charge)
            return tables.sandbox_charges.get(charge.operation_id) or charge

    async def record_refund(self, refund: SandboxRefund) -> SandboxRefund:
        async with self._database.write_transaction() as tables:
            if refund.operation_id not in tables.sandbox_refunds:
                tables.sandbox_refunds.put(refund.operation_id, _deduct_from_charge(tables, refund))
            return tables.sandbox_refunds.get(refund.operation_id) or refund

    async def record_capture(self, capture: SandboxCapture) -> SandboxCapture:
        async with self._database.write_transaction() as tables:
            if capture.operation_id not in tables.sandbox_captures:
                tables.sandbox_captures.put(
                    capture.operation_id, _change_authorization(tables, capture)
                )
            return tables.sandbox_captures.get(capture.operation_id) or capture

    async def advance_charge(self, charge: SandboxCharge) -> None:
        async with self._database.write_transaction() as tables:
            stored = tables.sandbox_charges.get(charge.operation_id)
            if stored is None:
                tables.sandbox_charges.put(charge.operation_id, charge)
            elif stored.status in EARLIER_CHARGE_STATUSES[charge.status]:
                advanced = replace(
                    stored,
                    status=charge.status,
                    failure_code=charge.failure_code,
                    captured=charge.captured,
                    expires_at=charge.expires_at,
                )
                tables.sandbox_charges.put(charge.operation_id, advanced)

    async def get_charge(self, operation_id: UUID) -> SandboxCharge | None:
        async with self._database.write_transaction() as tables:
            return tables.sandbox_charges.get(operation_id)

    async def get_capture(self, operation_id: UUID) -> SandboxCapture | None:
        async with self._database.write_transaction() as tables:
            return tables.sandbox_captures.get(operation_id)

    async def get_refund(self, operation_id: UUID) -> SandboxRefund | None:
        async with self._database.write_transaction() as tables:
            return tables.sandbox_refunds.get(operation_id)

    async def record_saved_method(self, method: SandboxSavedMethod) -> None:
        async with self._database.write_transaction() as tables:
            tables.sandbox_saved_methods.add(method.token, method)

    async def get_saved_method(self, token: str) -> SandboxSavedMethod | None:
        async with self._database.write_transaction() as tables:
            return tables.sandbox_saved_methods.get(token)

    async def detach_saved_method(self, token: str) -> None:
        async with self._database.write_transaction() as tables:
            method = tables.sandbox_saved_methods.get(token)
            if method:
                tables.sandbox_saved_methods.put(token, replace(method, is_attached=False))

    async def list_charges(self) -> Sequence[SandboxCharge]:
        async with self._database.write_transaction() as tables:
            return list(tables.sandbox_charges.rows())

    async def list_movements(
        self, start: datetime, end: datetime, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[SandboxMovement]:
        async with self._database.write_transaction() as tables:
            found = [
                # the money of an authorization, which has `expires_at`, is moved by its captures
                *_succeeded(
                    "charge", tables.sandbox_charges.where(lambda one: one.expires_at is None)
                ),
                *_succeeded(
                    "capture", tables.sandbox_captures.where(lambda one: one.kind == "capture")
                ),
                *_succeeded("refund", tables.sandbox_refunds.rows()),
            ]
        found.sort(key=_movement_position)
        return [
            movement
            for movement in found
            if start <= movement.created_at < end
            and (after is None or _movement_position(movement) > after)
        ][:limit]


def _succeeded(
    kind: Literal["charge", "capture", "refund"],
    rows: Iterable[SandboxCharge | SandboxCapture | SandboxRefund],
) -> Iterator[SandboxMovement]:
    return (
        SandboxMovement(kind, row.operation_id, row.created_at, row.amount, row.currency)
        for row in rows
        if row.status == "succeeded"
    )


def _movement_position(movement: SandboxMovement) -> tuple[datetime, UUID]:
    return movement.created_at, movement.operation_id


def _change_authorization(tables: Tables, capture: SandboxCapture) -> SandboxCapture:
    """Apply the capture or void to its authorization, and return it.

    If the authorization does not allow it, return it as failed.
    """
    if capture.status == "closed":
        return capture
    charge = capture.charge_operation_id and tables.sandbox_charges.get(capture.charge_operation_id)
    if not charge or not _allows_capture(charge, capture):
        return replace(capture, status="failed")
    tables.sandbox_charges.put(charge.operation_id, _apply_capture(charge, capture))
    return capture


def _allows_capture(charge: SandboxCharge, capture: SandboxCapture) -> bool:
    if charge.status != "authorized" or charge.currency != capture.currency:
        return False
    is_live = charge.expires_at is not None and capture.created_at < charge.expires_at
    return is_live and (capture.kind == "void" or charge.captured + capture.amount <= charge.amount)


def _apply_capture(charge: SandboxCharge, capture: SandboxCapture) -> SandboxCharge:
    if capture.kind == "void":
        return replace(charge, status="succeeded" if charge.captured else "voided")
    captured = charge.captured + capture.amount
    is_last = capture.is_final or captured == charge.amount
    return replace(charge, captured=captured, status="succeeded" if is_last else "authorized")


def _deduct_from_charge(tables: Tables, refund: SandboxRefund) -> SandboxRefund:
    """Add the refund to the refunded amount of its charge, and return the refund.

    If the charge does not cover the refund, return the refund as failed.
    """
    if refund.status == "closed":
        return refund
    charge = refund.charge_operation_id and tables.sandbox_charges.get(refund.charge_operation_id)
    if not charge or not _covers_refund(charge, refund):
        return replace(refund, status="failed")
    updated_charge = replace(charge, refunded=charge.refunded + refund.amount)
    tables.sandbox_charges.put(charge.operation_id, updated_charge)
    return refund


def _covers_refund(charge: SandboxCharge, refund: SandboxRefund) -> bool:
    is_covered = charge.refunded + refund.amount <= charge.captured
    return charge.currency == refund.currency and is_covered
