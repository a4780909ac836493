"""The tables of payments and their constraints.

The migration adds triggers to the ledger tables: at commit they check that the entries of each
posting sum to zero, and they reject every update and delete of postings and entries.
"""

import sqlalchemy as sa

from markethall.payments.domain.payment_transitions import PAYABLE_STATUSES
from markethall.shared.composition.sql import ContextStatements, context_metadata
from markethall.shared.persistence.postgres import sql_literal
from markethall.shared.persistence.sql import timestamp_column

metadata = context_metadata("payments")
STATEMENTS = ContextStatements(metadata)

PAYABLE_LITERALS = [sql_literal(status.value) for status in sorted(PAYABLE_STATUSES)]
OPEN_LITERALS = [sql_literal("pending"), sql_literal("unknown")]
PENDING_LITERAL = sql_literal("pending")
AUTHORIZED_LITERAL = sql_literal("authorized")

payments = sa.Table(
    "payment",
    metadata,
    sa.Column("payment_id", sa.Uuid, primary_key=True),
    # NULL in a tombstone, which records that a payment was cancelled before it was opened
    sa.Column("order_id", sa.Uuid),
    sa.Column("replaces", sa.Uuid),
    sa.Column("is_additional", sa.Boolean, nullable=False, server_default="false"),
    sa.Column("user_id", sa.Uuid),
    sa.Column("currency", sa.Text),
    sa.Column("country", sa.Text),
    timestamp_column("expires_at", nullable=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("authorized", sa.BigInteger, nullable=False),
    sa.Column("captured", sa.BigInteger, nullable=False),
    sa.Column("refunded", sa.BigInteger, nullable=False),
    sa.Column("refunding", sa.BigInteger, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("failure_code", sa.Text),
    # the JSON of a NextAction
    sa.Column("next_action", sa.Text),
    # the JSON of a PaymentDispute
    sa.Column("dispute", sa.Text),
    sa.Column("charge_id", sa.Uuid),
    sa.Column("open_change_id", sa.Uuid),
    sa.Column("is_activated", sa.Boolean, nullable=False),
    timestamp_column("created_at"),
    sa.Column("version", sa.Integer, nullable=False),
    sa.CheckConstraint(
        "status IN ('created', 'processing', 'requires_action', 'authorized', 'captured', 'failed',"
        " 'unknown', 'voided', 'cancelled', 'expired')",
        name="status",
    ),
    sa.CheckConstraint(
        "order_id IS NOT NULL AND user_id IS NOT NULL AND currency IS NOT NULL"
        " AND expires_at IS NOT NULL OR order_id IS NULL AND status = 'cancelled' AND amount = 0",
        name="opened_or_tombstone",
    ),
    sa.CheckConstraint("0 <= authorized AND authorized <= amount", name="authorized"),
    sa.CheckConstraint("0 <= captured AND captured <= authorized", name="captured"),
    sa.CheckConstraint(
        "0 <= refunded AND 0 <= refunding AND refunded + refunding <= captured", name="refunded"
    ),
    sa.CheckConstraint(
        "captured = 0 OR charge_id IS NOT NULL AND (status = 'captured'"
        " OR status IN ('authorized', 'voided', 'cancelled', 'expired') OR captured < amount"
        " AND status IN ('requires_action', 'failed'))",
        name="captured_by_charge",
    ),
    sa.CheckConstraint(
        "status <> 'authorized' OR charge_id IS NOT NULL AND captured < authorized",
        name="authorized_by_charge",
    ),
    sa.CheckConstraint(
        "open_change_id IS NULL OR status = 'authorized'", name="change_of_authorization"
    ),
)
sa.Index("ix_payment_of_user", payments.c.user_id, payments.c.created_at, payments.c.payment_id)
sa.Index("ix_payment_order_id", payments.c.order_id)
# payments that replace another payment of the order, and additional payments, are not in the index
sa.Index(
    "ix_payment_first_of_order",
    payments.c.order_id,
    unique=True,
    postgresql_where=payments.c.replaces.is_(None) & ~payments.c.is_additional,
)
sa.Index("ix_payment_created_at", payments.c.created_at, payments.c.payment_id)
sa.Index(
    "ix_payment_disputed",
    payments.c.created_at,
    payments.c.payment_id,
    postgresql_where=payments.c.dispute.is_not(None),
)
sa.Index(
    "ix_payment_payable",
    payments.c.expires_at,
    postgresql_where=payments.c.status.in_(PAYABLE_LITERALS),
)

sa.Index(
    "ix_payment_authorized",
    payments.c.expires_at,
    postgresql_where=payments.c.status == AUTHORIZED_LITERAL,
)

has_money_after_end = sa.and_(
    payments.c.status.in_(
        [sql_literal("cancelled"), sql_literal("expired"), sql_literal("voided")]
    ),
    payments.c.captured > payments.c.refunded + payments.c.refunding,
)
sa.Index("ix_payment_money_after_end", payments.c.payment_id, postgresql_where=has_money_after_end)

operations = sa.Table(
    "operation",
    metadata,
    sa.Column("operation_id", sa.Uuid, primary_key=True),
    sa.Column("payment_id", sa.Uuid, sa.ForeignKey(payments.c.payment_id), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("method", sa.Text),
    sa.Column("charge_id", sa.Uuid, sa.ForeignKey("payments.operation.operation_id")),
    sa.Column("charge_reference", sa.Text),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("is_final", sa.Boolean, nullable=False),
    sa.Column("provider_reference", sa.Text),
    sa.Column("failure_code", sa.Text),
    timestamp_column("created_at"),
    # NULL if staff settle the operation
    timestamp_column("due_at", nullable=True),
    timestamp_column("settled_at", nullable=True),
    timestamp_column("follow_up_at", nullable=True),
    sa.Column("fee_amount", sa.BigInteger),
    sa.Column("fee_currency", sa.Text),
    timestamp_column("fee_recorded_at", nullable=True),
    sa.Column("customer", sa.Text),
    sa.Column("saves_method", sa.Boolean, nullable=False),
    sa.CheckConstraint("status IN ('pending', 'succeeded', 'failed', 'unknown')", name="status"),
    sa.CheckConstraint(
        "kind IN ('charge', 'authorize') AND amount >= 0 AND method IS NOT NULL"
        " AND charge_id IS NULL OR kind IN ('capture', 'void', 'refund') AND amount > 0"
        " AND method IS NULL AND charge_id IS NOT NULL",
        name="kind",
    ),
    sa.CheckConstraint("(settled_at IS NULL) = (status IN ('pending', 'unknown'))", name="settled"),
    sa.CheckConstraint("NOT is_final OR kind = 'capture'", name="is_final"),
    sa.CheckConstraint(
        "num_nulls(fee_amount, fee_currency, fee_recorded_at) = 3"
        " OR num_nulls(fee_amount, fee_currency, fee_recorded_at) = 0 AND status = 'succeeded'",
        name="fee",
    ),
)
_is_charge = operations.c.kind.in_([sql_literal("charge"), sql_literal("authorize")])
sa.Index("ix_operation_payment_id", operations.c.payment_id, operations.c.created_at)
sa.Index(
    "uq_operation_one_open_charge",
    operations.c.payment_id,
    unique=True,
    postgresql_where=sa.and_(_is_charge, operations.c.status.in_(OPEN_LITERALS)),
)
sa.Index(
    "uq_operation_one_succeeded_charge",
    operations.c.payment_id,
    unique=True,
    postgresql_where=sa.and_(_is_charge, operations.c.status == sql_literal("succeeded")),
)
sa.Index("ix_operation_reference", operations.c.provider, operations.c.provider_reference)
sa.Index(
    "ix_operation_settled",
    operations.c.provider,
    operations.c.settled_at,
    operations.c.operation_id,
    postgresql_where=operations.c.status == sql_literal("succeeded"),
)
sa.Index(
    "uq_operation_one_open_change",
    operations.c.payment_id,
    unique=True,
    postgresql_where=sa.and_(
        operations.c.kind.in_([sql_literal("capture"), sql_literal("void")]),
        operations.c.status.in_(OPEN_LITERALS),
    ),
)
sa.Index(
    "ix_operation_due", operations.c.due_at, postgresql_where=operations.c.status.in_(OPEN_LITERALS)
)
sa.Index(
    "ix_operation_refund",
    operations.c.created_at,
    operations.c.operation_id,
    postgresql_where=operations.c.kind == sql_literal("refund"),
)
# so that the pending refunds are found without reading all refunds that are settled
sa.Index(
    "ix_operation_refund_status",
    operations.c.status,
    operations.c.created_at,
    operations.c.operation_id,
    postgresql_where=operations.c.kind == sql_literal("refund"),
)
sa.Index(
    "ix_operation_follow_up",
    operations.c.follow_up_at,
    postgresql_where=operations.c.follow_up_at.is_not(None),
)

postings = sa.Table(
    "posting",
    metadata,
    sa.Column("posting_id", sa.Uuid, primary_key=True),
    sa.Column("payment_id", sa.Uuid, sa.ForeignKey(payments.c.payment_id), nullable=False),
    sa.Column("operation_id", sa.Uuid, sa.ForeignKey(operations.c.operation_id), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    timestamp_column("created_at"),
    sa.Column("chain", sa.SmallInteger, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("operation_id", "kind"),
    sa.UniqueConstraint("chain", "sequence"),
    sa.CheckConstraint("kind IN ('capture', 'refund', 'fee')", name="kind"),
    sa.CheckConstraint(
        "chain >= 0 AND chain < 16 AND sequence > 0 AND length(hash) = 32", name="position"
    ),
)
sa.Index(
    "ix_posting_payment_id", postings.c.payment_id, postings.c.created_at, postings.c.posting_id
)
sa.Index("ix_posting_created_at", postings.c.created_at, postings.c.posting_id)

entries = sa.Table(
    "entry",
    metadata,
    sa.Column("posting_id", sa.Uuid, sa.ForeignKey(postings.c.posting_id), primary_key=True),
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("currency", sa.Text, primary_key=True),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.CheckConstraint("amount <> 0", name="amount"),
)

sa.Index("ix_entry_account", entries.c.account)

# the last posting of each hash chain; the row is locked from the insert of a posting to its commit
posting_chains = sa.Table(
    "posting_chain",
    metadata,
    sa.Column("chain", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
)

provider_customers = sa.Table(
    "provider_customer",
    metadata,
    sa.Column("user_id", sa.Uuid, primary_key=True),
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("reference", sa.Text, nullable=False),
)

# a row for each guest for whom a payment was opened or who was claimed; `user_id` is the user who
# has claimed the guest. The row is locked when a payment is opened and when the guest is claimed,
# so that these two are serialized.
guest_owners = sa.Table(
    "guest_owner",
    metadata,
    sa.Column("guest_id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.Uuid),
)

saved_methods = sa.Table(
    "saved_method",
    metadata,
    sa.Column("saved_method_id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.Uuid, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("customer", sa.Text, nullable=False),
    sa.Column("token", sa.Text, nullable=False),
    sa.Column("brand", sa.Text),
    sa.Column("last4", sa.Text),
    sa.Column("exp_month", sa.Integer),
    sa.Column("exp_year", sa.Integer),
    timestamp_column("created_at"),
    timestamp_column("deleted_at", nullable=True),
    timestamp_column("detach_at", nullable=True),
    sa.UniqueConstraint("provider", "token"),
    sa.CheckConstraint("last4 ~ '^[0-9]{4}$'", name="last4"),
    sa.CheckConstraint("detach_at IS NULL OR deleted_at IS NOT NULL", name="detached"),
)
sa.Index(
    "ix_saved_method_of_user",
    saved_methods.c.user_id,
    saved_methods.c.created_at,
    saved_methods.c.saved_method_id,
    postgresql_where=saved_methods.c.deleted_at.is_(None),
)
sa.Index(
    "ix_saved_method_detach_at",
    saved_methods.c.detach_at,
    postgresql_where=saved_methods.c.detach_at.is_not(None),
)

webhook_events = sa.Table(
    "webhook_event",
    metadata,
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("event_id", sa.Text, primary_key=True),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("operation_id", sa.Uuid),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("dispute_reference", sa.Text),
    sa.Column("state", sa.Text, nullable=False),
    timestamp_column("received_at"),
    timestamp_column("due_at"),
    timestamp_column("applied_at", nullable=True),
    sa.CheckConstraint(
        "state IN ('pending', 'applied', 'ignored', 'superseded', 'refunded', 'dead')", name="state"
    ),
)
sa.Index(
    "ix_webhook_event_pending",
    webhook_events.c.due_at,
    postgresql_where=webhook_events.c.state == PENDING_LITERAL,
)

# the sandbox stands for an external provider, so no statement joins its tables to those of payments
sandbox_charges = sa.Table(
    "sandbox_charge",
    metadata,
    sa.Column("operation_id", sa.Uuid, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("failure_code", sa.Text),
    sa.Column("captured", sa.BigInteger, nullable=False),
    sa.Column("refunded", sa.BigInteger, nullable=False),
    timestamp_column("expires_at", nullable=True),
    timestamp_column("created_at"),
    sa.CheckConstraint(
        "status IN ('succeeded', 'failed', 'requires_action', 'authorized', 'voided', 'closed')",
        name="status",
    ),
    sa.CheckConstraint(
        "0 <= captured AND captured <= amount"
        " AND (captured = 0 OR status IN ('succeeded', 'authorized'))",
        name="captured",
    ),
    sa.CheckConstraint("0 <= refunded AND refunded <= captured", name="refunded"),
)
sandbox_captures = sa.Table(
    "sandbox_capture",
    metadata,
    sa.Column("operation_id", sa.Uuid, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("charge_operation_id", sa.Uuid),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("is_final", sa.Boolean, nullable=False),
    timestamp_column("created_at"),
    sa.CheckConstraint("kind IN ('capture', 'void')", name="kind"),
    sa.CheckConstraint("status IN ('succeeded', 'failed', 'closed')", name="status"),
    sa.CheckConstraint("amount >= 0", name="amount"),
)
sandbox_refunds = sa.Table(
    "sandbox_refund",
    metadata,
    sa.Column("operation_id", sa.Uuid, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("charge_operation_id", sa.Uuid),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    timestamp_column("created_at"),
    sa.CheckConstraint("status IN ('succeeded', 'failed', 'closed')", name="status"),
    sa.CheckConstraint("amount >= 0", name="amount"),
)
sandbox_saved_methods = sa.Table(
    "sandbox_saved_method",
    metadata,
    sa.Column("token", sa.Text, primary_key=True),
    sa.Column("customer", sa.Text, nullable=False),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("is_attached", sa.Boolean, nullable=False),
)
