"""Holds know since when they are held, lines what was given back in part; a product may be in two
lines of a reservation, from two warehouses.
"""

import sqlalchemy as sa
from alembic import op

revision = "5b7e90c4d12f"
down_revision = "e07b3a91d5f4"
branch_labels = None
depends_on = None

SCHEMA = "inventory"
REFERENCE = "uq_stock_movement_reference"
FROM_SEVERAL = """
SELECT EXISTS (
    SELECT FROM inventory.stock_movement WHERE reference IS NOT NULL
    GROUP BY reference, product_id HAVING count(*) > 1
) OR EXISTS (
    SELECT FROM inventory.reservation_line WHERE reserved > 0
    GROUP BY reservation_id, product_id HAVING count(*) > 1
)
"""


def upgrade() -> None:
    _held_since()
    _released()
    _part_release()
    _one_sale_per(["reference", "product_id", "warehouse_id"])


def downgrade() -> None:
    if op.get_bind().scalar(sa.text(FROM_SEVERAL)):
        raise RuntimeError(
            "goods of one product were kept or sold from several warehouses for one order:"
            " the release before knows no such thing"
        )
    _one_sale_per(["reference", "product_id"])
    op.drop_table("partial_release", schema=SCHEMA)
    _drop_check("reservation_line", "released")
    _drop_check("reservation_line", "quantity")
    # a line that nothing is wanted of any more cannot be said without `released`
    op.execute(f"DELETE FROM {SCHEMA}.reservation_line WHERE quantity = 0")
    _add_check("reservation_line", "quantity", "quantity > 0")
    op.drop_column("reservation_line", "released", schema=SCHEMA)
    op.drop_index(op.f("ix_reservation_customer_id"), "reservation", schema=SCHEMA)
    _drop_check("reservation", "extended")
    op.drop_column("reservation", "reserved_at", schema=SCHEMA)


def _held_since() -> None:
    since = sa.Column(
        "reserved_at", sa.TIMESTAMP(timezone=True), server_default=sa.func.now(), nullable=False
    )
    op.add_column("reservation", since, schema=SCHEMA)
    # until now nobody noted it: as long as a hold lasts unless a setting says otherwise
    op.execute(
        f"UPDATE {SCHEMA}.reservation SET reserved_at = CASE"
        " WHEN order_id IS NULL THEN expires_at ELSE expires_at - interval '15 minutes' END"
    )
    _add_check("reservation", "extended", "expires_at <= reserved_at + interval '30 minutes'")
    op.create_index(
        op.f("ix_reservation_customer_id"),
        "reservation",
        ["customer_id", "expires_at"],
        schema=SCHEMA,
        postgresql_where=sa.text("status = 'held'"),
    )


def _released() -> None:
    released = sa.Column("released", sa.BigInteger(), server_default="0", nullable=False)
    op.add_column("reservation_line", released, schema=SCHEMA)
    _drop_check("reservation_line", "quantity")
    _add_check("reservation_line", "quantity", "quantity >= 0 AND quantity + released > 0")
    _add_check("reservation_line", "released", "released >= 0")


def _part_release() -> None:
    op.create_table(
        "partial_release",
        sa.Column("release_id", sa.Uuid(), nullable=False),
        sa.Column("reservation_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("release_id", name=op.f("pk_partial_release")),
        sa.ForeignKeyConstraint(
            ["reservation_id"],
            [f"{SCHEMA}.reservation.reservation_id"],
            name=op.f("fk_partial_release_reservation_id"),
        ),
        schema=SCHEMA,
    )


def _one_sale_per(columns: list[str]) -> None:
    op.drop_index(op.f(REFERENCE), "stock_movement", schema=SCHEMA)
    op.create_index(
        op.f(REFERENCE),
        "stock_movement",
        columns,
        schema=SCHEMA,
        unique=True,
        postgresql_where=sa.text("reference IS NOT NULL"),
    )


def _add_check(table: str, name: str, rule: str) -> None:
    op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, rule, schema=SCHEMA)


def _drop_check(table: str, name: str) -> None:
    op.drop_constraint(op.f(f"ck_{table}_{name}"), table, schema=SCHEMA)
