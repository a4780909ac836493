from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY

from markethall.inventory.catalogue.sql.expressions import LIMIT, insert_row, uuid_parameter
from markethall.inventory.catalogue.sql.tables import metadata
from markethall.inventory.media.domain import Media
from markethall.shared.composition.sql import SqlUnitOfWork
from markethall.shared.persistence.postgres import Statement
from markethall.shared.persistence.sql import timestamp_column

media = sa.Table(
    "media",
    metadata,
    sa.Column("media_id", sa.Uuid, primary_key=True),
    sa.Column("storage_key", sa.Uuid, nullable=False, unique=True),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
    sa.Column("widths", ARRAY(sa.Integer), nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    timestamp_column("created_at"),
    sa.CheckConstraint("width BETWEEN 1 AND 16383 AND height BETWEEN 1 AND 16383", name="size"),
    sa.CheckConstraint("width = ANY(widths)", name="widths"),
)


_by_id: Final = media.c.media_id == uuid_parameter("media_id")
GET_MEDIA: Final = Statement(sa.select(media).where(_by_id))
LIST_MEDIA: Final = Statement(
    sa.select(media)
    .where(sa.or_(uuid_parameter("before").is_(None), media.c.media_id < uuid_parameter("before")))
    .order_by(media.c.media_id.desc())
    .limit(LIMIT)
)
LIST_STORAGE_KEYS: Final = Statement(
    sa.select(media.c.storage_key).where(
        media.c.storage_key == sa.any_(bindparam("keys", type_=ARRAY(sa.Uuid)))
    )
)
INSERT_MEDIA: Final = Statement(insert_row(media))
DELETE_MEDIA: Final = Statement(sa.delete(media).where(_by_id))


class SqlMediaStore(SqlUnitOfWork):
    async def get_media(self, media_id: UUID) -> Media | None:
        row = await self._connection.fetch_one(GET_MEDIA, media_id=media_id)
        return Media(**row) if row else None

    async def list_media(self, before: UUID | None, limit: int) -> Sequence[Media]:
        rows = await self._connection.fetch_all(LIST_MEDIA, before=before, limit=limit)
        return [Media(**row) for row in rows]

    async def list_storage_keys(self, keys: Collection[UUID]) -> Collection[UUID]:
        rows = await self._connection.fetch_all(LIST_STORAGE_KEYS, keys=list(keys))
        return [row["storage_key"] for row in rows]

    async def insert_media(self, media: Media) -> bool:
        return await self._has_effect(INSERT_MEDIA, **vars(media))

    async def delete_media(self, media_id: UUID) -> bool:
        return await self._has_effect(DELETE_MEDIA, media_id=media_id)
