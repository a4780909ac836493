from typing import Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, insert

from markethall.inventory.catalogue.sql.parameters import LIMIT, uuid_parameter
from markethall.inventory.media.sql.tables import media
from markethall.shared.persistence.postgres import Statement

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
INSERT_MEDIA: Final = Statement(
    insert(media)
    .values({column.name: bindparam(column.name) for column in media.c})
    .on_conflict_do_nothing()
)
DELETE_MEDIA: Final = Statement(sa.delete(media).where(_by_id))
