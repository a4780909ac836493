from collections.abc import Collection, Sequence
from uuid import UUID

from markethall.inventory.media.domain.media import Media
from markethall.inventory.media.sql import statements
from markethall.shared.composition.sql import SqlUnitOfWork


class SqlMediaStore(SqlUnitOfWork):
    async def get_media(self, media_id: UUID) -> Media | None:
        row = await self._connection.fetch_one(statements.GET_MEDIA, media_id=media_id)
        return Media(**row) if row else None

    async def list_media(self, before: UUID | None, limit: int) -> Sequence[Media]:
        rows = await self._connection.fetch_all(statements.LIST_MEDIA, before=before, limit=limit)
        return [Media(**row) for row in rows]

    async def list_storage_keys(self, keys: Collection[UUID]) -> Collection[UUID]:
        rows = await self._connection.fetch_all(statements.LIST_STORAGE_KEYS, keys=list(keys))
        return [row["storage_key"] for row in rows]

    async def insert_media(self, media: Media) -> bool:
        return bool(await self._connection.execute(statements.INSERT_MEDIA, **vars(media)))

    async def delete_media(self, media_id: UUID) -> bool:
        return bool(await self._connection.execute(statements.DELETE_MEDIA, media_id=media_id))
