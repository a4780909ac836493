"""The Postgres store of saved payment methods."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from markethall.payments.domain.saved_method import MethodDetails, ProviderCustomer, SavedMethod
from markethall.payments.sql import saved_method_statements as sql
from markethall.payments.sql.statements import page_values
from markethall.shared.composition.sql import SqlUnitOfWork
from markethall.shared.kernel.pagination import TimeKeyset

if TYPE_CHECKING:
    from asyncpg.protocol import Record

_DETAILS = tuple(field.name for field in fields(MethodDetails))
_OTHERS = tuple(field.name for field in fields(SavedMethod) if field.name != "details")


class SqlSavedMethodStore(SqlUnitOfWork):
    async def get_saved_method(self, saved_method_id: UUID) -> SavedMethod | None:
        row = await self._connection.fetch_one(
            sql.GET_SAVED_METHOD, saved_method_id=saved_method_id
        )
        return _to_saved_method(row) if row else None

    async def find_saved_method(self, provider: str, token: str) -> SavedMethod | None:
        row = await self._connection.fetch_one(
            sql.FIND_SAVED_METHOD, provider=provider, token=token
        )
        return _to_saved_method(row) if row else None

    async def list_saved_methods(
        self, user_id: UUID, after: TimeKeyset | None, limit: int
    ) -> Sequence[SavedMethod]:
        rows = await self._connection.fetch_all(
            sql.list_saved_methods(has_keyset=after is not None),
            user_id=user_id,
            **page_values(after, limit),
        )
        return [_to_saved_method(row) for row in rows]

    async def get_provider_customer(self, user_id: UUID, provider: str) -> ProviderCustomer | None:
        row = await self._connection.fetch_one(
            sql.GET_PROVIDER_CUSTOMER, user_id=user_id, provider=provider
        )
        return ProviderCustomer(**dict(row)) if row else None

    async def add_provider_customer(
        self, customer: ProviderCustomer, replaced: str | None = None
    ) -> ProviderCustomer:
        if replaced is not None:
            await self._connection.execute(
                sql.REPLACE_PROVIDER_CUSTOMER,
                of_user=customer.user_id,
                at_provider=customer.provider,
                replaced=replaced,
                new_reference=customer.reference,
            )
        await self._connection.execute(sql.INSERT_PROVIDER_CUSTOMER, **asdict(customer))
        stored = await self.get_provider_customer(customer.user_id, customer.provider)
        return stored or customer

    async def add_saved_method(self, method: SavedMethod) -> None:
        await self._connection.execute(sql.INSERT_SAVED_METHOD, **_row(method))

    async def delete_saved_methods(
        self, user_id: UUID, saved_method_id: UUID | None, now: datetime, limit: int
    ) -> Sequence[SavedMethod]:
        values = {"user_id": user_id, "now": now, "limit": limit}
        if saved_method_id is None:
            rows = await self._connection.fetch_all(sql.DELETE_SAVED_METHODS, **values)
        else:
            rows = await self._connection.fetch_all(
                sql.DELETE_SAVED_METHOD, saved_method_id=saved_method_id, **values
            )
        return [_to_saved_method(row) for row in rows]

    async def claim_methods_to_detach(
        self, now: datetime, next_at: datetime, limit: int
    ) -> Sequence[SavedMethod]:
        rows = await self._connection.fetch_all(
            sql.CLAIM_METHODS_TO_DETACH, now=now, next_at=next_at, limit=limit
        )
        return [_to_saved_method(row) for row in rows]

    async def finish_detaching(self, saved_method_id: UUID) -> None:
        await self._connection.execute(sql.FINISH_DETACHING, saved_method_id=saved_method_id)


def _to_saved_method(row: "Record") -> SavedMethod:
    details = MethodDetails(**{name: row[name] for name in _DETAILS})
    return SavedMethod(**{name: row[name] for name in _OTHERS}, details=details)


def _row(method: SavedMethod) -> dict[str, Any]:
    return {name: getattr(method, name) for name in _OTHERS} | asdict(method.details)
