"""The table of images. Their files are in the media storage."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from markethall.inventory.catalogue.sql.tables import metadata
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
