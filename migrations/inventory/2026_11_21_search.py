"""Products are found by words: a column of them, and the vocabulary for words that are mistyped."""

import re
import unicodedata
from collections.abc import Iterable

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "5b1e90c47d2a"
down_revision = "c8d3f2ba1045"
branch_labels = None
depends_on = None

SCHEMA = "inventory"
AT_ONCE = 500

# similar words are found where the server has pg_trgm; all else works without. `public`, since an
# extension belongs to the whole database
TRIGRAMS = """
DO $$ BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;
EXCEPTION
    WHEN insufficient_privilege OR undefined_file OR feature_not_supported OR invalid_schema_name
        OR duplicate_object OR unique_violation OR object_not_in_prerequisite_state THEN
        RAISE NOTICE 'no pg_trgm here (%): mistyped words will find nothing', SQLERRM;
END $$;
"""


def upgrade() -> None:
    search = sa.Column("search", postgresql.TSVECTOR(), server_default="", nullable=False)
    op.add_column("product", search, schema=SCHEMA)
    op.create_table(
        "search_word",
        sa.Column("word", sa.Text(collation="C"), nullable=False),
        sa.PrimaryKeyConstraint("word", name=op.f("pk_search_word")),
        schema=SCHEMA,
    )
    _write_words()
    op.create_index(
        op.f("ix_product_search"), "product", ["search"], schema=SCHEMA, postgresql_using="gin"
    )
    op.execute(TRIGRAMS)


def downgrade() -> None:
    # pg_trgm stays: others of this database may have come to use it
    op.drop_index(op.f("ix_product_search"), "product", schema=SCHEMA)
    op.drop_table("search_word", schema=SCHEMA)
    op.drop_column("product", "search", schema=SCHEMA)


# The words of the products that are there, by the rules of this revision


def _write_words() -> None:
    connection = op.get_bind()
    some = sa.text(
        "SELECT product_id, name, sku, tags, description FROM inventory.product"
        " WHERE product_id > :after ORDER BY product_id LIMIT :at_once"
    )
    after = sa.text("SELECT '00000000-0000-0000-0000-000000000000'::uuid")
    last = connection.scalar(after)
    while rows := connection.execute(some, {"after": last, "at_once": AT_ONCE}).all():
        last = rows[-1].product_id
        _write(connection, [(row.product_id, _weights(row)) for row in rows])


def _write(connection: sa.Connection, found: "list[tuple[object, dict[str, str]]]") -> None:
    vectors = [
        {"id": key, "search": " ".join(f"'{word}':1{letter}" for word, letter in words.items())}
        for key, words in found
    ]
    learnt = {
        word
        for _, words in found
        for word, letter in words.items()
        if letter in "AC" and len(word) > 2  # noqa: PLR2004 - too short to be mistyped
    }
    update = (
        "UPDATE inventory.product SET search = CAST(:search AS tsvector) WHERE product_id = :id"
    )
    connection.execute(sa.text(update), vectors)
    learn = "INSERT INTO inventory.search_word VALUES (:word) ON CONFLICT DO NOTHING"
    if learnt:
        connection.execute(sa.text(learn), [{"word": word} for word in sorted(learnt)])


def _weights(row: "sa.Row[tuple[object, ...]]") -> dict[str, str]:
    weights: dict[str, str] = {}
    fields: Iterable[tuple[str, list[str]]] = (
        ("A", [row.name]), ("B", [row.sku]), ("C", row.tags), ("D", [row.description]),
    )  # fmt: skip
    for letter, texts in fields:
        for text in texts:
            for word in _words(text):
                if len(weights) < 4000:  # noqa: PLR2004 - a tsvector has 1 MB
                    weights.setdefault(word, letter)
    return weights


def _words(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    bare = "".join(c for c in folded if not unicodedata.category(c).startswith("M"))
    return re.findall(r"\w{1,50}", bare)
