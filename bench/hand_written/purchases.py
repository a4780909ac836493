"""Placing and paying an order: each is its few statements, and the answer for its key."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

import asyncpg

from markethall.shared.kernel.ids import new_id

from . import event_statements, statements
from .models import ConfirmRequest, OrderRequest, Problem
from .provider import charge

STATUS_BY_CODE: Final[Mapping[str, int]] = {
    "customer_inactive": 403,
    "product_not_found": 404,
    "payment_not_found": 404,
    "too_many_unpaid_orders": 409,
    "too_many_units": 409,
    "out_of_stock": 409,
    "payment_in_progress": 409,
    "payment_not_payable": 409,
    "key_used_with_another_request": 422,
}
# not stored for the key, because a retry may get another answer
_TEMPORARY: Final = frozenset({"payment_in_progress", "customer_inactive"})


@dataclass(frozen=True)
class Limits:
    """Limits per customer: unpaid orders, and unpaid units of one product."""

    max_unpaid_orders: int = 20
    max_reserved_units: int = 1000


class Rejected(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.problem = Problem(status=STATUS_BY_CODE[code], code=code)


@dataclass(frozen=True)
class KeyedRequest:
    """A customer's request with an idempotency key."""

    customer_id: UUID
    key: str
    request_hash: bytes

    @classmethod
    def build(cls, customer_id: UUID, key: str, path: str, body: str) -> "KeyedRequest":
        return cls(customer_id, key, sha256(f"{path} {body}".encode()).digest())


class Purchases:
    """`on_event` is called after each write of an event."""

    def __init__(
        self, pool: "asyncpg.Pool[asyncpg.Record]", limits: Limits, on_event: Callable[[], None]
    ) -> None:
        self._pool, self._limits, self._on_event = pool, limits, on_event

    async def place(self, customer_id: UUID, key: str, order: OrderRequest) -> str:
        """Place the order and return its JSON. Raises Rejected."""
        request = KeyedRequest.build(customer_id, key, "/orders", order.model_dump_json())
        line = order.lines[0]
        try:
            placed: str = await self._pool.fetchval(
                statements.PLACE_ORDER,
                *(customer_id, key, request.request_hash, line.product_id, line.quantity),
                *(self._limits.max_unpaid_orders, self._limits.max_reserved_units),
                order.shipping_address.model_dump_json(),
                *(new_id() for _ in range(5)),
            )
        except (asyncpg.UniqueViolationError, asyncpg.NotNullViolationError):
            record = await self._get_record(request)
            return (
                _to_response(record)
                if record
                else await self._reject(
                    request,
                    *(statements.REJECTION_OF_ORDER, customer_id, line.product_id, line.quantity),
                    *(self._limits.max_unpaid_orders, self._limits.max_reserved_units),
                )
            )
        self._on_event()
        return placed

    async def confirm(
        self, customer_id: UUID, key: str, payment_id: UUID, body: ConfirmRequest
    ) -> str:
        """Charge the payment and return its JSON. Raises Rejected."""
        path = f"/payments/{payment_id}/confirm"
        request = KeyedRequest.build(customer_id, key, path, body.model_dump_json())
        operation = await self._begin(request, payment_id, body.payment_method)
        if operation is None:
            record = await self._get_record(request)
            if record is None:
                return await self._reject(
                    request, statements.REJECTION_OF_CONFIRM, payment_id, customer_id
                )
            if record["response"] or record["operation_id"] is None:
                return _to_response(record)
            # an earlier attempt has crashed, or is still running
            operation = record
        response = await self._settle(operation)
        return response or _to_response(await self._get_record(request))

    async def recover(self, min_age: timedelta) -> None:
        """Settle the operations whose process has crashed before their outcome was recorded."""
        for operation in await self._pool.fetch(event_statements.GET_ABANDONED, min_age):
            await self._settle(operation)

    async def _begin(
        self, request: KeyedRequest, payment_id: UUID, method: str
    ) -> asyncpg.Record | None:
        """Record the operation. Returns None if the key is used, or the payment not payable."""
        owner = request.customer_id, request.key, request.request_hash
        try:
            return await self._pool.fetchrow(
                statements.BEGIN_CHARGE, *owner, payment_id, new_id(), method
            )
        except asyncpg.UniqueViolationError:
            return None

    async def _settle(self, operation: asyncpg.Record) -> str | None:
        """Charge and record the outcome. Returns None if it was recorded already."""
        operation_id = operation["operation_id"]
        # no connection is held during the call
        outcome = await charge(operation_id, operation["method"], operation["amount"])
        response: str | None
        if outcome.reference:
            values = operation_id, outcome.reference, new_id(), new_id()
            response = await self._pool.fetchval(statements.SETTLE_SUCCEEDED, *values)
        else:
            failure = operation_id, outcome.failure_code, new_id()
            response = await self._pool.fetchval(statements.SETTLE_FAILED, *failure)
        if response:
            self._on_event()
        return response

    async def _get_record(self, request: KeyedRequest) -> asyncpg.Record | None:
        """Return the record of the key. Raises Rejected if it is of another request."""
        record = await self._pool.fetchrow(statements.GET_RECORD, request.customer_id, request.key)
        if record and record["request_hash"] != request.request_hash:
            raise Rejected("key_used_with_another_request")
        return record

    async def _reject(self, request: KeyedRequest, reason_sql: str, *values: Any) -> str:
        """Find the reason of a rejection, store it for the key, and raise it as Rejected.

        Returns the stored response if another attempt with the key was faster.
        """
        code = await self._pool.fetchval(reason_sql, *values)
        error = Rejected(code)
        if code in _TEMPORARY:
            raise error
        owner = request.customer_id, request.key, request.request_hash
        status, body = error.problem.status, error.problem.model_dump_json()
        await self._pool.execute(statements.ADD_REJECTION, *owner, status, body)
        record = await self._get_record(request)
        if record is None:  # the customer does not exist
            raise error
        return _to_response(record)


def _to_response(record: asyncpg.Record | None) -> str:
    """Return the stored JSON. Raises Rejected if it is that of a rejection, or not stored yet."""
    if record is None or record["response"] is None:
        raise Rejected("payment_in_progress")
    if record["status"] >= 400:
        raise Rejected(json.loads(record["response"])["code"])
    return str(record["response"])
