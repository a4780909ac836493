"""Goods that go from one place to another, and goods that are counted."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from markethall.inventory.contract import (
    Count,
    CountedLine,
    Movement,
    NewStocktake,
    NewTransfer,
    Reason,
    Stocktake,
    Transfer,
)
from markethall.inventory.domain.stock import Change
from markethall.shared.errors import Invalid


def check_transfer(command: NewTransfer) -> None:
    """Raises Invalid."""
    if command.from_warehouse_id == command.to_warehouse_id:
        message = "must be another warehouse than the goods come from"
        raise Invalid(
            errors=[{"field": "/to_warehouse_id", "code": "same_warehouse", "message": message}]
        )


def transferred(
    command: NewTransfer, transfer_id: UUID, ids: tuple[UUID, UUID], actor: str, now: datetime
) -> tuple[Change, Change]:
    """What leaves, and what arrives."""
    leaves = Change(
        movement_id=ids[0],
        product_id=command.product_id,
        warehouse_id=command.from_warehouse_id,
        delta=-command.quantity,
        counted=None,
        reason=Reason.TRANSFERRED,
        note=command.note,
        reference=transfer_id,
        actor=actor,
        created_at=now,
    )
    return leaves, leaves.opposite(ids[1], command.to_warehouse_id)


def transfer_of(movements: Iterable[Movement]) -> Transfer:
    """From its two movements, which are in any order."""
    leaves, arrives = sorted(movements, key=lambda movement: movement.delta)
    return Transfer(
        transfer_id=_reference(leaves),
        product_id=leaves.product_id,
        from_warehouse_id=leaves.warehouse_id,
        to_warehouse_id=arrives.warehouse_id,
        quantity=arrives.delta,
        note=leaves.note,
        actor=leaves.actor,
        created_at=leaves.created_at,
        movements=(leaves, arrives),
    )


def check_stocktake(command: NewStocktake) -> None:
    """Raises Invalid."""
    message = "exactly one of product_id and sku must be given"
    errors = [
        {"field": f"/lines/{number}", "code": "product_id_or_sku", "message": message}
        for number, line in enumerate(command.lines)
        if (line.product_id is None) == (line.sku is None)
    ]
    if errors:
        raise Invalid(errors=errors)


def counts_of(lines: Sequence[Count], skus: Mapping[UUID, str]) -> dict[UUID, int]:
    """What was counted of each product, in product id order. Raises Invalid."""
    named = {sku.lower(): product_id for product_id, sku in skus.items()}
    counts: dict[UUID, int] = {}
    for number, line in enumerate(lines):
        product_id = line.product_id or named[(line.sku or "").lower()]
        if product_id in counts:
            message = "another line has counted this product"
            raise Invalid(
                errors=[{"field": f"/lines/{number}", "code": "twice", "message": message}]
            )
        counts[product_id] = line.counted
    return dict(sorted(counts.items()))


def stocktake_of(movements: Sequence[Movement], skus: Mapping[UUID, str]) -> Stocktake:
    """From its movements, of which there is at least one."""
    first = movements[0]
    return Stocktake(
        stocktake_id=_reference(first),
        warehouse_id=first.warehouse_id,
        note=first.note,
        actor=first.actor,
        created_at=first.created_at,
        lines=tuple(
            CountedLine(
                product_id=movement.product_id,
                sku=skus[movement.product_id],
                counted=movement.on_hand_after,
                delta=movement.delta,
                movement_id=movement.movement_id,
            )
            for movement in sorted(movements, key=lambda movement: movement.product_id)
        ),
    )


def _reference(movement: Movement) -> UUID:
    if movement.reference is None:
        raise LookupError(f"movement {movement.movement_id} has no reference")
    return movement.reference
