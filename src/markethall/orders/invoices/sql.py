"""The Postgres store of invoices."""

from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import JSONB, insert

from markethall.orders.configuration.sql import (
    SqlConfigurationStore,
    enum_check,
    metadata,
    readable_columns,
)
from markethall.orders.invoices.contract import InvoiceDocument, InvoiceKind
from markethall.orders.invoices.domain import Invoice, NewInvoice
from markethall.shared.persistence.postgres import Statement
from markethall.shared.persistence.sql import timestamp_column

# The last number of each kind. A sequence would leave a gap when a transaction rolls back; this row
# is locked until the end of the transaction, and rolls back with it. A trigger allows only the next
# number.
invoice_counters: Final = sa.Table(
    "invoice_counter",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("last_number", sa.BigInteger, nullable=False),
    enum_check("kind", InvoiceKind),
    sa.CheckConstraint("last_number >= 1", name="last_number"),
)
# a trigger forbids changes
invoices: Final = sa.Table(
    "invoice",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("order_id", sa.ForeignKey("orders.order.order_id"), nullable=False, index=True),
    sa.Column("source_id", sa.Uuid, nullable=False),
    timestamp_column("issued_at"),
    sa.Column("document", JSONB, nullable=False),
    sa.UniqueConstraint("kind", "source_id"),
    enum_check("kind", InvoiceKind),
    sa.CheckConstraint("number >= 1", name="number"),
    sa.CheckConstraint("jsonb_typeof(document) = 'object'", name="document"),
)


_COLUMNS: Final = tuple(column.name for column in invoices.c if column.name != "number")


def _bind(name: str) -> "sa.BindParameter[Any]":
    return bindparam(f"invoice_{name}", type_=invoices.c[name].type)


def add_invoice(parent: Any = None) -> Any:
    """Build the insert of a document with the next number of its kind.

    With `parent`, insert it only if the statement `parent` returned a row.
    """
    first = sa.select(_bind("kind"), sa.cast(1, sa.BigInteger))
    counted = (
        insert(invoice_counters)
        .from_select(
            ["kind", "last_number"], first if parent is None else first.select_from(parent)
        )
        .on_conflict_do_update(
            index_elements=[invoice_counters.c.kind],
            set_={"last_number": invoice_counters.c.last_number + 1},
        )
        .returning(invoice_counters.c.last_number)
        .cte("counted")
    )
    source = sa.select(counted.c.last_number, *(_bind(name) for name in _COLUMNS))
    return (
        sa.insert(invoices).from_select(["number", *_COLUMNS], source).returning(invoices.c.number)
    )


def invoice_values(invoice: NewInvoice) -> dict[str, Any]:
    """Return the values of the binds of `add_invoice`."""
    values = vars(invoice) | {"document": invoice.document.model_dump_json()}
    return {f"invoice_{name}": values[name] for name in _COLUMNS}


ADD_INVOICE: Final = Statement(add_invoice())
GET_INVOICE: Final = Statement(
    sa.select(*readable_columns(invoices)).where(
        invoices.c.kind == bindparam("kind"), invoices.c.source_id == bindparam("source_id")
    )
)


class SqlInvoiceStore(SqlConfigurationStore):
    async def get_invoice(self, kind: InvoiceKind, source_id: UUID) -> Invoice | None:
        row = await self._connection.fetch_one(GET_INVOICE, kind=kind, source_id=source_id)
        if row is None:
            return None
        document = InvoiceDocument.model_validate_json(row["document"])
        return Invoice(**{**row, "kind": InvoiceKind(row["kind"]), "document": document})

    async def add_invoice(self, invoice: NewInvoice) -> int:
        number: int = await self._connection.fetch_value(ADD_INVOICE, **invoice_values(invoice))
        return number
