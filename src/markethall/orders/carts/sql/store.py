"""The Postgres store of carts. It runs the statements and maps rows to entities."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from markethall.orders.carts.contract import CartStatus
from markethall.orders.carts.domain import Cart, CartLine, CartRef
from markethall.orders.carts.sql import statements as sql
from markethall.orders.carts.sql.tables import carts
from markethall.orders.configuration.ports import ConcurrentUpdate
from markethall.orders.configuration.sql import SqlConfigurationStore
from markethall.orders.contract import Address
from markethall.shared.kernel.money import Money

if TYPE_CHECKING:
    from asyncpg.protocol import Record

_ADDRESSES: Final = ("shipping_address", "billing_address")
# columns that have the same name and type in the entity
_PLAIN_COLUMNS: Final = tuple(
    column.name for column in carts.c if column.name not in {"status", "metadata", *_ADDRESSES}
)


class SqlCartStore(SqlConfigurationStore):
    async def get_cart(self, cart_id: UUID) -> Cart | None:
        row = await self._connection.fetch_one(sql.GET_CART, cart_id=cart_id)
        return _to_cart(row) if row else None

    async def list_carts(
        self, user_id: UUID, status: CartStatus | None, after: UUID | None, limit: int
    ) -> Sequence[Cart]:
        rows = await self._connection.fetch_all(
            sql.LIST_CARTS, user_id=user_id, status=status, after=after, limit=limit
        )
        return [_to_cart(row) for row in rows]

    async def lock_cart_owner(self, user_id: UUID) -> None:
        await self._connection.execute(sql.LOCK_CART_OWNER, user_id=user_id)

    async def count_open_carts(self, user_id: UUID) -> int:
        count: int = await self._connection.fetch_value(sql.COUNT_OPEN_CARTS, user_id=user_id)
        return count

    async def add_cart(self, cart: Cart) -> bool:
        added = await self._connection.fetch_value(
            sql.INSERT_CART, **_cart_row(cart), **_line_arrays(cart.lines)
        )
        return added is not None

    async def save_cart(self, cart: Cart) -> None:
        row = _cart_row(cart)
        for name in ("user_id", "is_guest", "created_at"):
            del row[name]
        saved = await self._connection.fetch_value(
            sql.SAVE_CART, **row, expected_version=cart.version - 1, **_line_arrays(cart.lines)
        )
        if saved is None:
            raise ConcurrentUpdate

    async def record_look(self, cart: Cart) -> None:
        arrays = _line_arrays(cart.lines)
        for name in ("position", "quantity"):
            del arrays[f"line_{name}"]
        await self._connection.execute(sql.RECORD_LOOK, cart_id=cart.cart_id, **arrays)

    async def check_out_cart(self, cart: CartRef, order_id: UUID, now: datetime) -> bool:
        return bool(
            await self._connection.execute(
                sql.CHECK_OUT_CART,
                cart_id=cart.cart_id,
                expected_version=cart.version,
                new_order_id=order_id,
                now=now,
            )
        )

    async def claim_carts(self, guest_id: UUID, user_id: UUID) -> None:
        await self._connection.execute(sql.CLAIM_CARTS, guest_id=guest_id, claimed_by=user_id)

    async def delete_expired_carts(
        self, guests_before: datetime, customers_before: datetime, limit: int
    ) -> int:
        return await self._connection.execute(
            sql.DELETE_EXPIRED_CARTS,
            guests_before=guests_before,
            customers_before=customers_before,
            limit=limit,
        )


def _cart_row(cart: Cart) -> dict[str, Any]:
    row = {name: getattr(cart, name) for name in _PLAIN_COLUMNS}
    return row | {
        "status": cart.status.value,
        "metadata": json.dumps(dict(cart.metadata)),
        **{name: address_to_json(getattr(cart, name)) for name in _ADDRESSES},
    }


def _line_arrays(lines: Sequence[CartLine]) -> dict[str, list[Any]]:
    return {
        "line_position": list(range(1, len(lines) + 1)),
        "line_seen_amount": [line.seen_price.amount for line in lines],
        "line_seen_currency": [line.seen_price.currency for line in lines],
        **{
            f"line_{name}": [getattr(line, name) for line in lines]
            for name in ("product_id", "quantity", "sku", "name", "seen_available")
        },
    }


def _to_cart(row: "Record") -> Cart:
    return Cart(
        **{name: row[name] for name in _PLAIN_COLUMNS},
        status=CartStatus(row["status"]),
        metadata=MappingProxyType(json.loads(row["metadata"])),
        shipping_address=_address_from_json(row["shipping_address"]),
        billing_address=_address_from_json(row["billing_address"]),
        lines=tuple(_to_line(line) for line in json.loads(row["lines"] or "[]")),
    )


def _to_line(line: Mapping[str, Any]) -> CartLine:
    return CartLine(
        product_id=UUID(line["product_id"]),
        quantity=line["quantity"],
        sku=line["sku"],
        name=line["name"],
        seen_price=Money(amount=line["seen_amount"], currency=line["seen_currency"]),
        seen_available=line["seen_available"],
    )


def address_to_json(address: str | Address | None) -> str | None:
    if address is None:
        return None
    return address.model_dump_json() if isinstance(address, Address) else json.dumps(address)


def _address_from_json(text: str | None) -> str | Address | None:
    value = None if text is None else json.loads(text)
    return Address.model_validate(value) if isinstance(value, dict) else value
