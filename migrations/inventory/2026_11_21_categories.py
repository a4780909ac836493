"""Categories are a tree of rows; what products name so far stands at its root level."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "ebf1491f8fd8"
down_revision = "3f7a1c9e52d0"
branch_labels = None
depends_on = None

SCHEMA = "inventory"

# ensure_category: the row is locked (KEY SHARE) before the foreign key looks for it, so that whoever
# removes it meanwhile is waited for, and it is made anew.
# check_category_cycle: the lock of the service, taken here too, so that raw SQL cannot close a ring either.
# A new one that is there already is for the unique key to refuse.
RULES = """
CREATE FUNCTION inventory.uuid7() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT encode(
        set_bit(
            set_bit(
                overlay(
                    uuid_send(gen_random_uuid())
                    PLACING substring(
                        int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3
                    )
                    FROM 1 FOR 6
                ),
                52, 1
            ),
            53, 1
        ),
        'hex'
    )::uuid
$$;

CREATE FUNCTION inventory.ensure_category() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    LOOP
        PERFORM FROM inventory.category c WHERE c.category = NEW.category FOR KEY SHARE;
        EXIT WHEN FOUND;
        INSERT INTO inventory.category
            (category_id, category, name, parent, position, translations, version)
        VALUES (inventory.uuid7(), NEW.category, NEW.category, NULL, 0, '{}', 1)
        ON CONFLICT DO NOTHING;
    END LOOP;
    RETURN NEW;
END $$;

CREATE TRIGGER product_insert_ensures_category BEFORE INSERT ON inventory.product
    FOR EACH ROW WHEN (NEW.category IS NOT NULL) EXECUTE FUNCTION inventory.ensure_category();

CREATE TRIGGER product_update_ensures_category BEFORE UPDATE OF category ON inventory.product
    FOR EACH ROW WHEN (NEW.category IS DISTINCT FROM OLD.category AND NEW.category IS NOT NULL)
    EXECUTE FUNCTION inventory.ensure_category();

CREATE FUNCTION inventory.check_category_cycle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('inventory.category', 0));
    IF TG_OP = 'INSERT' AND EXISTS (
        SELECT FROM inventory.category c WHERE c.category = NEW.category
    ) THEN
        RETURN NEW;
    END IF;
    PERFORM FROM (
        WITH RECURSIVE above AS (
            SELECT c.category, c.parent FROM inventory.category c WHERE c.category = NEW.parent
            UNION
            SELECT c.category, c.parent FROM inventory.category c
            JOIN above ON c.category = above.parent
        ) SELECT above.category FROM above WHERE above.category = NEW.category
    ) ring;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME,
            MESSAGE = format('category %s would be below itself', NEW.category);
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER category_cycle_check BEFORE INSERT OR UPDATE OF parent ON inventory.category
    FOR EACH ROW WHEN (NEW.parent IS NOT NULL) EXECUTE FUNCTION inventory.check_category_cycle();
"""


def upgrade() -> None:
    op.create_table(
        "category",
        sa.Column("category_id", sa.Uuid(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("parent", sa.Text(), nullable=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("translations", postgresql.JSONB(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("category_id", name=op.f("pk_category")),
        sa.UniqueConstraint("category", name=op.f("uq_category_category")),
        sa.ForeignKeyConstraint(
            ["parent"], [f"{SCHEMA}.category.category"], name=op.f("fk_category_parent")
        ),
        sa.CheckConstraint("parent <> category", name=op.f("ck_category_parent")),
        sa.CheckConstraint("position >= 0", name=op.f("ck_category_position")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_category_version")),
        schema=SCHEMA,
    )
    op.create_index(op.f("ix_category_parent"), "category", ["parent"], schema=SCHEMA)
    for rule in RULES.strip().split("\n\n"):
        op.execute(rule)
    op.execute(
        "INSERT INTO inventory.category"
        " SELECT inventory.uuid7(), category, category, NULL, 0, '{}', 1 FROM inventory.product"
        " WHERE category IS NOT NULL GROUP BY category ORDER BY category"
    )
    op.create_foreign_key(
        op.f("fk_product_category"),
        "product",
        "category",
        ["category"],
        ["category"],
        source_schema=SCHEMA,
        referent_schema=SCHEMA,
    )


def downgrade() -> None:
    op.drop_constraint(op.f("fk_product_category"), "product", schema=SCHEMA)
    op.execute("DROP TRIGGER product_insert_ensures_category ON inventory.product")
    op.execute("DROP TRIGGER product_update_ensures_category ON inventory.product")
    op.drop_table("category", schema=SCHEMA)
    for function in ("check_category_cycle", "ensure_category", "uuid7"):
        op.execute(f"DROP FUNCTION {SCHEMA}.{function}")
