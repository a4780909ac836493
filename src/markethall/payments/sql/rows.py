"""Map rows to entities that several stores read."""

from dataclasses import fields
from typing import TYPE_CHECKING

from markethall.payments.contract.statuses import OperationKind, OperationStatus
from markethall.payments.domain.operation import Operation

if TYPE_CHECKING:
    from asyncpg.protocol import Record

OPERATION_COLUMNS = tuple(field.name for field in fields(Operation))


def to_operation(row: "Record", prefix: str = "") -> Operation:
    values = {name: row[prefix + name] for name in OPERATION_COLUMNS}
    kind, status = OperationKind(values["kind"]), OperationStatus(values["status"])
    return Operation(**values | {"kind": kind, "status": status})
