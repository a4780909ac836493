"""Bind parameters and SQL expressions that several statements use."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY

NOW: Final = bindparam("now", type_=sa.TIMESTAMP(timezone=True))
LIMIT: Final = bindparam("limit", type_=sa.Integer)
ZERO: Final = sa.literal_column("0", sa.BigInteger)
PRODUCT_IDS: Final = bindparam("product_ids", type_=ARRAY(sa.Uuid))


def bigint_parameter(name: str) -> "sa.BindParameter[int]":
    return bindparam(name, type_=sa.BigInteger)


def uuid_parameter(name: str) -> "sa.BindParameter[Any]":
    return bindparam(name, type_=sa.Uuid)


def integer_literal(fixed: int) -> "sa.ColumnElement[int]":
    """Build a literal: the number is part of the SQL text, not a bind parameter."""
    return sa.literal_column(str(fixed), sa.Integer)


def sum_or_zero(column: "sa.ColumnElement[int]") -> "sa.ColumnElement[int]":
    return sa.func.coalesce(sa.cast(sa.func.sum(column), sa.BigInteger), ZERO)
