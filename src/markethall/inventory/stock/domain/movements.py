"""Transfers and stocktakes, as changes and movements of stock."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from markethall.inventory.stock.contract.movements import (
    CountedLine,
    Movement,
    MovementReason,
    NewStocktake,
    NewStocktakeLine,
    NewTransfer,
    Stocktake,
    Transfer,
)
from markethall.inventory.stock.domain.stock import StockChange
from markethall.shared.kernel.errors import ValidationFailed


def check_transfer(command: NewTransfer) -> None:
    """Raises ValidationFailed."""
    if command.from_warehouse_id == command.to_warehouse_id:
        message = "must be another warehouse than the goods come from"
        raise ValidationFailed(
            errors=[{"field": "/to_warehouse_id", "code": "same_warehouse", "message": message}]
        )


def plan_transfer(
    command: NewTransfer,
    transfer_id: UUID,
    movement_ids: tuple[UUID, UUID],
    actor: str,
    now: datetime,
) -> tuple[StockChange, StockChange]:
    """Return the outgoing and the incoming change."""
    outgoing = StockChange(
        movement_id=movement_ids[0],
        product_id=command.product_id,
        warehouse_id=command.from_warehouse_id,
        delta=-command.quantity,
        counted=None,
        reason=MovementReason.TRANSFERRED,
        note=command.note,
        reference=transfer_id,
        actor=actor,
        created_at=now,
    )
    return outgoing, outgoing.mirrored(movement_ids[1], command.to_warehouse_id)


def transfer_from_movements(movements: Iterable[Movement]) -> Transfer:
    """Build a transfer from its two movements, in any order."""
    outgoing, incoming = sorted(movements, key=lambda movement: movement.delta)
    return Transfer(
        transfer_id=_reference(outgoing),
        product_id=outgoing.product_id,
        from_warehouse_id=outgoing.warehouse_id,
        to_warehouse_id=incoming.warehouse_id,
        quantity=incoming.delta,
        note=outgoing.note,
        actor=outgoing.actor,
        created_at=outgoing.created_at,
        movements=(outgoing, incoming),
    )


def check_stocktake(command: NewStocktake) -> None:
    """Raises ValidationFailed."""
    message = "exactly one of product_id and sku must be given"
    errors = [
        {"field": f"/lines/{number}", "code": "product_id_or_sku", "message": message}
        for number, line in enumerate(command.lines)
        if (line.product_id is None) == (line.sku is None)
    ]
    if errors:
        raise ValidationFailed(errors=errors)


def counts_by_product(
    lines: Sequence[NewStocktakeLine], skus: Mapping[UUID, str]
) -> dict[UUID, int]:
    """Return the counted units in product id order. Raises ValidationFailed."""
    product_ids_by_sku = {sku.lower(): product_id for product_id, sku in skus.items()}
    counts: dict[UUID, int] = {}
    for number, line in enumerate(lines):
        product_id = line.product_id or product_ids_by_sku[(line.sku or "").lower()]
        if product_id in counts:
            message = "another line has counted this product"
            raise ValidationFailed(
                errors=[{"field": f"/lines/{number}", "code": "twice", "message": message}]
            )
        counts[product_id] = line.counted
    return dict(sorted(counts.items()))


def stocktake_from_movements(movements: Sequence[Movement], skus: Mapping[UUID, str]) -> Stocktake:
    """Build a stocktake from its movements, of which there is at least one."""
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
