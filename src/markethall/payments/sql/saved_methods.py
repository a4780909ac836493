"""The Postgres store of saved payment methods and claimed guests, and its statements."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from markethall.payments.domain.saved_method import MethodDetails, ProviderCustomer, SavedMethod
from markethall.payments.sql.statements import (
    LIMIT,
    insert_new,
    one_page,
    page_values,
)
from markethall.payments.sql.tables import guest_owners, provider_customers, saved_methods
from markethall.shared.composition.sql import SqlUnitOfWork
from markethall.shared.kernel.pagination import TimeKeyset
from markethall.shared.persistence.postgres import Statement

_has_id = saved_methods.c.saved_method_id == bindparam("saved_method_id")
_of_user = saved_methods.c.user_id == bindparam("user_id")
_not_deleted = saved_methods.c.deleted_at.is_(None)

GET_SAVED_METHOD = Statement(sa.select(saved_methods).where(_has_id))
FIND_SAVED_METHOD = Statement(
    sa.select(saved_methods).where(
        saved_methods.c.provider == bindparam("provider"),
        saved_methods.c.token == bindparam("token"),
    )
)
INSERT_SAVED_METHOD = insert_new(saved_methods)
GET_PROVIDER_CUSTOMER = Statement(
    sa.select(provider_customers).where(
        provider_customers.c.user_id == bindparam("user_id"),
        provider_customers.c.provider == bindparam("provider"),
    )
)
INSERT_PROVIDER_CUSTOMER = insert_new(provider_customers)
REPLACE_PROVIDER_CUSTOMER = Statement(
    sa.update(provider_customers)
    .where(
        provider_customers.c.user_id == bindparam("of_user"),
        provider_customers.c.provider == bindparam("at_provider"),
        provider_customers.c.reference == bindparam("replaced"),
    )
    .values(reference=bindparam("new_reference", type_=sa.Text))
)
# Inserts a row, or locks and returns the existing row. On conflict, `user_id` is set to its own
# value, because DO NOTHING would neither lock nor return the row.
GET_GUEST_OWNER_FOR_UPDATE = Statement(
    insert(guest_owners)
    .values(guest_id=bindparam("guest_id"))
    .on_conflict_do_update(
        index_elements=[guest_owners.c.guest_id], set_={"user_id": guest_owners.c.user_id}
    )
    .returning(guest_owners.c.user_id)
)
SET_GUEST_OWNER = Statement(
    insert(guest_owners)
    .values(guest_id=bindparam("guest_id"), user_id=bindparam("user_id"))
    .on_conflict_do_update(
        index_elements=[guest_owners.c.guest_id], set_={"user_id": bindparam("user_id")}
    )
)
_methods_of_guest = (
    sa.select(saved_methods.c.saved_method_id)
    .where(saved_methods.c.user_id == bindparam("guest_id"))
    # in the order in which other statements lock the rows
    .order_by(saved_methods.c.saved_method_id)
    .with_for_update()
    .cte("methods_of_guest")
)
MOVE_SAVED_METHODS = Statement(
    sa.update(saved_methods)
    .where(saved_methods.c.saved_method_id == _methods_of_guest.c.saved_method_id)
    .values(user_id=bindparam("new_user_id", type_=sa.Uuid))
)
# On conflict, the user already has a customer at this provider, which is kept.
COPY_PROVIDER_CUSTOMERS = Statement(
    insert(provider_customers)
    .from_select(
        ["user_id", "provider", "reference"],
        sa.select(
            bindparam("new_user_id", type_=sa.Uuid),
            provider_customers.c.provider,
            provider_customers.c.reference,
        ).where(provider_customers.c.user_id == bindparam("guest_id", type_=sa.Uuid)),
    )
    .on_conflict_do_nothing()
)
DELETE_PROVIDER_CUSTOMERS = Statement(
    sa.delete(provider_customers).where(provider_customers.c.user_id == bindparam("guest_id"))
)


@cache
def list_saved_methods(*, has_keyset: bool) -> Statement:
    return Statement(
        one_page(
            sa.select(saved_methods).where(_of_user, _not_deleted),
            saved_methods.c.created_at,
            saved_methods.c.saved_method_id,
            has_keyset=has_keyset,
            descending=True,
        )
    )


def _delete(condition: sa.ColumnElement[bool]) -> Statement:
    selected = (
        sa.select(saved_methods.c.saved_method_id)
        .where(_of_user, _not_deleted, condition)
        # so that two requests lock the rows in the same order
        .order_by(saved_methods.c.saved_method_id)
        .limit(LIMIT)
        .with_for_update()
        .cte("selected")
    )
    now = bindparam("now", type_=saved_methods.c.deleted_at.type)
    return Statement(
        sa.update(saved_methods)
        .where(saved_methods.c.saved_method_id == selected.c.saved_method_id)
        .values(deleted_at=now, detach_at=now)
        .returning(saved_methods)
    )


DELETE_SAVED_METHOD = _delete(_has_id)
DELETE_SAVED_METHODS = _delete(sa.true())

_due = (
    sa.select(saved_methods.c.saved_method_id)
    .where(saved_methods.c.detach_at <= bindparam("now"))
    .order_by(saved_methods.c.detach_at)
    .limit(LIMIT)
    .with_for_update(skip_locked=True)
    .cte("due")
)
CLAIM_METHODS_TO_DETACH = Statement(
    sa.update(saved_methods)
    .where(saved_methods.c.saved_method_id == _due.c.saved_method_id)
    .values(detach_at=bindparam("next_at", type_=saved_methods.c.detach_at.type))
    .returning(saved_methods)
)
FINISH_DETACHING = Statement(
    sa.update(saved_methods)
    .where(_has_id)
    .values(detach_at=None, brand=None, last4=None, exp_month=None, exp_year=None)
)


if TYPE_CHECKING:
    from asyncpg.protocol import Record

_DETAILS = tuple(field.name for field in fields(MethodDetails))
_OTHERS = tuple(field.name for field in fields(SavedMethod) if field.name != "details")


class SqlSavedMethodStore(SqlUnitOfWork):
    async def get_saved_method(self, saved_method_id: UUID) -> SavedMethod | None:
        row = await self._connection.fetch_one(GET_SAVED_METHOD, saved_method_id=saved_method_id)
        return _to_saved_method(row) if row else None

    async def find_saved_method(self, provider: str, token: str) -> SavedMethod | None:
        row = await self._connection.fetch_one(FIND_SAVED_METHOD, provider=provider, token=token)
        return _to_saved_method(row) if row else None

    async def list_saved_methods(
        self, user_id: UUID, after: TimeKeyset | None, limit: int
    ) -> Sequence[SavedMethod]:
        rows = await self._connection.fetch_all(
            list_saved_methods(has_keyset=after is not None),
            user_id=user_id,
            **page_values(after, limit),
        )
        return [_to_saved_method(row) for row in rows]

    async def get_provider_customer(self, user_id: UUID, provider: str) -> ProviderCustomer | None:
        row = await self._connection.fetch_one(
            GET_PROVIDER_CUSTOMER, user_id=user_id, provider=provider
        )
        return ProviderCustomer(**dict(row)) if row else None

    async def add_provider_customer(
        self, customer: ProviderCustomer, replaced: str | None = None
    ) -> ProviderCustomer:
        if replaced is not None:
            await self._connection.execute(
                REPLACE_PROVIDER_CUSTOMER,
                of_user=customer.user_id,
                at_provider=customer.provider,
                replaced=replaced,
                new_reference=customer.reference,
            )
        await self._connection.execute(INSERT_PROVIDER_CUSTOMER, **asdict(customer))
        stored = await self.get_provider_customer(customer.user_id, customer.provider)
        return stored or customer

    async def add_saved_method(self, method: SavedMethod) -> None:
        await self._connection.execute(INSERT_SAVED_METHOD, **_row(method))

    async def delete_saved_methods(
        self, user_id: UUID, saved_method_id: UUID | None, now: datetime, limit: int
    ) -> Sequence[SavedMethod]:
        values = {"user_id": user_id, "now": now, "limit": limit}
        if saved_method_id is None:
            rows = await self._connection.fetch_all(DELETE_SAVED_METHODS, **values)
        else:
            rows = await self._connection.fetch_all(
                DELETE_SAVED_METHOD, saved_method_id=saved_method_id, **values
            )
        return [_to_saved_method(row) for row in rows]

    async def claim_methods_to_detach(
        self, now: datetime, next_at: datetime, limit: int
    ) -> Sequence[SavedMethod]:
        rows = await self._connection.fetch_all(
            CLAIM_METHODS_TO_DETACH, now=now, next_at=next_at, limit=limit
        )
        return [_to_saved_method(row) for row in rows]

    async def finish_detaching(self, saved_method_id: UUID) -> None:
        await self._connection.execute(FINISH_DETACHING, saved_method_id=saved_method_id)


def _to_saved_method(row: "Record") -> SavedMethod:
    details = MethodDetails(**{name: row[name] for name in _DETAILS})
    return SavedMethod(**{name: row[name] for name in _OTHERS}, details=details)


def _row(method: SavedMethod) -> dict[str, Any]:
    return {name: getattr(method, name) for name in _OTHERS} | asdict(method.details)


class SqlGuestStore(SqlUnitOfWork):
    async def get_guest_owner_for_update(self, guest_id: UUID) -> UUID | None:
        user_id: UUID | None = await self._connection.fetch_value(
            GET_GUEST_OWNER_FOR_UPDATE, guest_id=guest_id
        )
        return user_id

    async def set_guest_owner(self, guest_id: UUID, user_id: UUID) -> None:
        await self._connection.execute(SET_GUEST_OWNER, guest_id=guest_id, user_id=user_id)

    async def move_saved_methods(self, guest_id: UUID, user_id: UUID) -> None:
        values = {"guest_id": guest_id, "new_user_id": user_id}
        await self._connection.execute(MOVE_SAVED_METHODS, **values)
        await self._connection.execute(COPY_PROVIDER_CUSTOMERS, **values)
        await self._connection.execute(DELETE_PROVIDER_CUSTOMERS, guest_id=guest_id)
