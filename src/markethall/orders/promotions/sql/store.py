"""The Postgres store of promotions."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

from markethall.orders.configuration.domain import ConfigurationItem, ItemKind
from markethall.orders.configuration.ports import ConcurrentUpdate
from markethall.orders.configuration.sql import SqlConfigurationStore
from markethall.orders.promotions.contract import NewPromotion, PromotionQuery
from markethall.orders.promotions.domain import (
    CustomerHistory,
    Promotion,
    PromotionProblem,
    Redemption,
    check_redeemed,
    voucher_key,
)
from markethall.orders.promotions.ports import PromotionUsage
from markethall.orders.promotions.sql import statements as sql

if TYPE_CHECKING:
    from asyncpg.protocol import Record


class SqlPromotionStore(SqlConfigurationStore):
    async def list_all_items(self) -> Sequence[ConfigurationItem]:
        rows = await self._connection.fetch_all(sql.LIST_ALL_ITEMS)
        return [ConfigurationItem(**{**row, "kind": ItemKind(row["kind"])}) for row in rows]

    async def get_promotion(self, promotion_id: UUID) -> Promotion | None:
        row = await self._connection.fetch_one(sql.GET_PROMOTION, promotion_id=promotion_id)
        return _to_promotion(row) if row else None

    async def get_promotion_for_update(self, promotion_id: UUID) -> Promotion | None:
        row = await self._connection.fetch_one(
            sql.GET_PROMOTION_FOR_UPDATE, promotion_id=promotion_id
        )
        return _to_promotion(row) if row else None

    async def list_promotions(
        self, query: PromotionQuery, after: UUID | None
    ) -> Sequence[Promotion]:
        filters: dict[str, Any] = {
            "code_key": None if query.code is None else voucher_key(query.code),
            "is_active": query.is_active,
            "after": after,
        }
        statement = sql.list_promotions(
            by_code=query.code is not None,
            by_activity=query.is_active is not None,
            after_id=after is not None,
        )
        given = {name: value for name, value in filters.items() if value is not None}
        rows = await self._connection.fetch_all(statement, **given, limit=query.limit + 1)
        return [_to_promotion(row) for row in rows]

    async def get_customer_history(
        self, customer_id: UUID, code_key: str | None
    ) -> CustomerHistory:
        row = await self._connection.fetch_one(
            sql.GET_CUSTOMER_HISTORY, customer_id=customer_id, code_key=code_key
        )
        if row is None:
            raise LookupError("the statement returns one row")
        uses = json.loads(row["uses"] or "{}")
        return CustomerHistory(
            has_orders=row["has_orders"],
            uses={UUID(promotion_id): used for promotion_id, used in uses.items()},
            voucher=_to_promotion(row) if row["promotion_id"] else None,
        )

    async def count_automatic_promotions(self) -> int:
        count: int = await self._connection.fetch_value(sql.COUNT_AUTOMATIC)
        return count

    async def get_promotion_usage(self, promotion_id: UUID) -> PromotionUsage:
        row = await self._connection.fetch_one(sql.GET_USAGE, promotion_id=promotion_id)
        return PromotionUsage(**row) if row else PromotionUsage(0, 0)

    async def insert_promotion(self, promotion: Promotion) -> bool:
        inserted = await self._connection.execute(
            sql.INSERT_PROMOTION,
            promotion_id=promotion.promotion_id,
            created_at=promotion.created_at,
            **_changed_columns(promotion),
        )
        return bool(inserted)

    async def save_promotion(self, promotion: Promotion) -> bool:
        try:
            await self._connection.execute(
                sql.SAVE_PROMOTION, saved_id=promotion.promotion_id, **_changed_columns(promotion)
            )
        except asyncpg.UniqueViolationError:
            return False
        return True

    async def delete_promotion(self, promotion_id: UUID) -> None:
        await self._connection.execute(sql.DELETE_PROMOTION, promotion_id=promotion_id)

    async def redeem_promotions(self, redemption: Redemption) -> None:
        failed = await self._connection.fetch_all(
            sql.REDEEM_PROMOTIONS,
            promotion_ids=sorted(redemption.promotion_ids),
            order_id=redemption.order_id,
            customer_id=redemption.customer_id,
            used_at=redemption.at,
            is_reinstatement=redemption.is_reinstatement,
        )
        problems = {row["promotion_id"]: _find_problem(row) for row in failed}
        check_redeemed(redemption, problems)

    async def give_back_promotions(self, order_id: UUID, kept: Sequence[UUID] = ()) -> None:
        await self._connection.execute(
            sql.GIVE_BACK_PROMOTIONS, order_id=order_id, kept_ids=list(kept)
        )

    async def move_promotion_uses(self, order_id: UUID, customer_id: UUID) -> None:
        await self._connection.execute(
            sql.MOVE_PROMOTION_USES, order_id=order_id, customer_id=customer_id
        )


def _find_problem(row: "Record") -> PromotionProblem:
    """Return why a use was not taken. Raises ConcurrentUpdate."""
    if row["is_unknown"]:
        return PromotionProblem.UNKNOWN
    if row["is_changed"]:
        raise ConcurrentUpdate
    if row["is_exhausted"]:
        return PromotionProblem.USAGE_LIMIT
    if not row["is_active"]:
        return PromotionProblem.INACTIVE
    if row["is_over_customer_limit"]:
        return PromotionProblem.PER_CUSTOMER_LIMIT
    return PromotionProblem.FIRST_ORDER


def _changed_columns(promotion: Promotion) -> dict[str, Any]:
    fields = promotion.fields
    return {
        "code_key": promotion.code_key,
        "is_active": fields.is_active,
        "usage_limit": fields.usage_limit,
        "per_customer_limit": fields.per_customer_limit,
        "first_order": fields.conditions.first_order,
        "used": promotion.used,
        "fields": fields.model_dump_json(),
        "version": promotion.version,
    }


def _to_promotion(row: "Record") -> Promotion:
    return Promotion(
        promotion_id=row["promotion_id"],
        fields=NewPromotion.model_validate_json(row["fields"]),
        version=row["version"],
        created_at=row["created_at"],
        used=row["used"],
    )
