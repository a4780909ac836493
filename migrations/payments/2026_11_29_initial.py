"""Create the payments schema: payments, operations, the ledger, webhook events, the sandbox."""

import sqlalchemy as sa
from alembic import op

revision = "3c9d41e7a2b5"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "payments"

TABLES = (
    "idempotency_record",
    "inbox",
    "outbox",
    "reconciliation_difference",
    "reconciliation",
    "sandbox_saved_method",
    "sandbox_refund",
    "sandbox_capture",
    "sandbox_charge",
    "guest_owner",
    "saved_method",
    "provider_customer",
    "webhook_event",
    "entry",
    "posting",
    "posting_chain",
    "operation",
    "payment",
)

# checked at commit, because several statements write a posting and its entries
CHECK_POSTING_BALANCES = """
CREATE FUNCTION payments.posting_balances() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM payments.entry WHERE posting_id = NEW.posting_id) THEN
        RAISE EXCEPTION 'posting % has no entries', NEW.posting_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'posting_balances';
    END IF;
    IF EXISTS (
        SELECT FROM payments.entry WHERE posting_id = NEW.posting_id
        GROUP BY currency HAVING sum(amount) <> 0
    ) THEN
        RAISE EXCEPTION 'posting % does not balance', NEW.posting_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'posting_balances';
    END IF;
    RETURN NULL;
END $$
"""
REJECT_LEDGER_CHANGE = """
CREATE FUNCTION payments.ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % of % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END $$
"""


def upgrade() -> None:
    _payment()
    _operation()
    _ledger()
    _saved_method()
    _guest_owner()
    _webhook_event()
    _sandbox()
    _reconciliation()
    _outbox()
    _inbox()
    _idempotency_record()


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table, schema=SCHEMA)
    op.execute(f"DROP FUNCTION {SCHEMA}.posting_balances()")
    op.execute(f"DROP FUNCTION {SCHEMA}.ledger_is_append_only()")


def _payment() -> None:
    op.create_table(
        "payment",
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=True),
        sa.Column("replaces", sa.Uuid(), nullable=True),
        sa.Column("is_additional", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("country", sa.Text(), nullable=True),
        _timestamp("expires_at", nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        *_amounts("amount", "authorized", "captured", "refunded", "refunding"),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("failure_code", sa.Text(), nullable=True),
        sa.Column("next_action", sa.Text(), nullable=True),
        sa.Column("dispute", sa.Text(), nullable=True),
        sa.Column("charge_id", sa.Uuid(), nullable=True),
        sa.Column("open_change_id", sa.Uuid(), nullable=True),
        sa.Column("is_activated", sa.Boolean(), nullable=False),
        _timestamp("created_at"),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("payment_id", name=op.f("pk_payment")),
        *_checks("payment", PAYMENT_CHECKS),
        schema=SCHEMA,
    )
    _index("ix_payment_of_user", "payment", ["user_id", "created_at", "payment_id"])
    _index("ix_payment_order_id", "payment", ["order_id"])
    _index(
        "ix_payment_first_of_order",
        "payment",
        ["order_id"],
        unique=True,
        where="replaces IS NULL AND NOT is_additional",
    )
    _index("ix_payment_created_at", "payment", ["created_at", "payment_id"])
    _index(
        "ix_payment_disputed",
        "payment",
        ["created_at", "payment_id"],
        where="dispute IS NOT NULL",
    )
    payable = "status IN ('created', 'failed', 'requires_action')"
    _index("ix_payment_payable", "payment", ["expires_at"], where=payable)
    _index("ix_payment_authorized", "payment", ["expires_at"], where="status = 'authorized'")
    _index(
        "ix_payment_money_after_end",
        "payment",
        ["payment_id"],
        where="status IN ('cancelled', 'expired', 'voided') AND captured > refunded + refunding",
    )


WEBHOOK_EVENT_CHECKS = {
    "state": "state IN ('pending', 'applied', 'ignored', 'superseded', 'refunded', 'dead')"
}
PAYMENT_CHECKS = {
    "status": "status IN ('created', 'processing', 'requires_action', 'authorized', 'captured',"
    " 'failed', 'unknown', 'voided', 'cancelled', 'expired')",
    "opened_or_tombstone": "order_id IS NOT NULL AND user_id IS NOT NULL AND currency IS NOT NULL"
    " AND expires_at IS NOT NULL OR order_id IS NULL AND status = 'cancelled' AND amount = 0",
    "authorized": "0 <= authorized AND authorized <= amount",
    "captured": "0 <= captured AND captured <= authorized",
    "refunded": "0 <= refunded AND 0 <= refunding AND refunded + refunding <= captured",
    "captured_by_charge": "captured = 0 OR charge_id IS NOT NULL AND (status = 'captured'"
    " OR status IN ('authorized', 'voided', 'cancelled', 'expired') OR captured < amount"
    " AND status IN ('requires_action', 'failed'))",
    "authorized_by_charge": "status <> 'authorized' OR charge_id IS NOT NULL"
    " AND captured < authorized",
    "change_of_authorization": "open_change_id IS NULL OR status = 'authorized'",
}


def _operation() -> None:
    op.create_table(
        "operation",
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        *_amounts("amount"),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=True),
        sa.Column("charge_id", sa.Uuid(), nullable=True),
        sa.Column("charge_reference", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("is_final", sa.Boolean(), nullable=False),
        sa.Column("provider_reference", sa.Text(), nullable=True),
        sa.Column("failure_code", sa.Text(), nullable=True),
        _timestamp("created_at"),
        _timestamp("due_at", nullable=True),
        _timestamp("settled_at", nullable=True),
        _timestamp("follow_up_at", nullable=True),
        sa.Column("fee_amount", sa.BigInteger(), nullable=True),
        sa.Column("fee_currency", sa.Text(), nullable=True),
        _timestamp("fee_recorded_at", nullable=True),
        sa.Column("customer", sa.Text(), nullable=True),
        sa.Column("saves_method", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("operation_id", name=op.f("pk_operation")),
        _foreign_key("operation", "payment_id", "payment.payment_id"),
        _foreign_key("operation", "charge_id", "operation.operation_id"),
        *_checks("operation", OPERATION_CHECKS),
        schema=SCHEMA,
    )
    _index("ix_operation_payment_id", "operation", ["payment_id", "created_at"])
    still_open = "status IN ('pending', 'unknown')"
    _index("ix_operation_due", "operation", ["due_at"], where=still_open)
    _index(
        "ix_operation_refund",
        "operation",
        ["created_at", "operation_id"],
        where="kind = 'refund'",
    )
    _index(
        "ix_operation_refund_status",
        "operation",
        ["status", "created_at", "operation_id"],
        where="kind = 'refund'",
    )
    _index(
        "ix_operation_follow_up",
        "operation",
        ["follow_up_at"],
        where="follow_up_at IS NOT NULL",
    )
    _index("ix_operation_reference", "operation", ["provider", "provider_reference"])
    _index(
        "ix_operation_settled",
        "operation",
        ["provider", "settled_at", "operation_id"],
        where="status = 'succeeded'",
    )
    for name, state in (("open", still_open), ("succeeded", "status = 'succeeded'")):
        _index(
            f"uq_operation_one_{name}_charge",
            "operation",
            ["payment_id"],
            unique=True,
            where=f"kind IN ('charge', 'authorize') AND {state}",
        )
    _index(
        "uq_operation_one_open_change",
        "operation",
        ["payment_id"],
        unique=True,
        where=f"kind IN ('capture', 'void') AND {still_open}",
    )


OPERATION_CHECKS = {
    "status": "status IN ('pending', 'succeeded', 'failed', 'unknown')",
    "kind": "kind IN ('charge', 'authorize') AND amount >= 0 AND method IS NOT NULL"
    " AND charge_id IS NULL OR kind IN ('capture', 'void', 'refund') AND amount > 0"
    " AND method IS NULL AND charge_id IS NOT NULL",
    "settled": "(settled_at IS NULL) = (status IN ('pending', 'unknown'))",
    "is_final": "NOT is_final OR kind = 'capture'",
    "fee": "num_nulls(fee_amount, fee_currency, fee_recorded_at) = 3"
    " OR num_nulls(fee_amount, fee_currency, fee_recorded_at) = 0 AND status = 'succeeded'",
}


POSTING_CHECKS = {
    "kind": "kind IN ('capture', 'refund', 'fee')",
    "position": "chain >= 0 AND chain < 16 AND sequence > 0 AND length(hash) = 32",
}


def _ledger() -> None:
    op.create_table(
        "posting",
        sa.Column("posting_id", sa.Uuid(), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        _timestamp("created_at"),
        sa.Column("chain", sa.SmallInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("posting_id", name=op.f("pk_posting")),
        _foreign_key("posting", "payment_id", "payment.payment_id"),
        _foreign_key("posting", "operation_id", "operation.operation_id"),
        sa.UniqueConstraint("operation_id", "kind", name=op.f("uq_posting_operation_id_kind")),
        sa.UniqueConstraint("chain", "sequence", name=op.f("uq_posting_chain_sequence")),
        *_checks("posting", POSTING_CHECKS),
        schema=SCHEMA,
    )
    _index("ix_posting_payment_id", "posting", ["payment_id", "created_at", "posting_id"])
    _index("ix_posting_created_at", "posting", ["created_at", "posting_id"])
    op.create_table(
        "entry",
        sa.Column("posting_id", sa.Uuid(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        *_amounts("amount"),
        sa.PrimaryKeyConstraint("posting_id", "account", "currency", name=op.f("pk_entry")),
        _foreign_key("entry", "posting_id", "posting.posting_id"),
        *_checks("entry", {"amount": "amount <> 0"}),
        schema=SCHEMA,
    )
    _index("ix_entry_account", "entry", ["account"])
    op.create_table(
        "posting_chain",
        sa.Column("chain", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chain", name=op.f("pk_posting_chain")),
        schema=SCHEMA,
    )
    _ledger_triggers()


def _ledger_triggers() -> None:
    op.execute(CHECK_POSTING_BALANCES)
    op.execute(REJECT_LEDGER_CHANGE)
    for table in ("posting", "entry"):
        op.execute(
            f"CREATE CONSTRAINT TRIGGER posting_balances AFTER INSERT ON {SCHEMA}.{table}"
            " DEFERRABLE INITIALLY DEFERRED"
            f" FOR EACH ROW EXECUTE FUNCTION {SCHEMA}.posting_balances()"
        )
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {SCHEMA}.{table}"
            f" FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.ledger_is_append_only()"
        )


def _guest_owner() -> None:
    op.create_table(
        "guest_owner",
        sa.Column("guest_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("guest_id", name=op.f("pk_guest_owner")),
        schema=SCHEMA,
    )


def _saved_method() -> None:
    op.create_table(
        "provider_customer",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "provider", name=op.f("pk_provider_customer")),
        schema=SCHEMA,
    )
    op.create_table(
        "saved_method",
        sa.Column("saved_method_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("customer", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("brand", sa.Text(), nullable=True),
        sa.Column("last4", sa.Text(), nullable=True),
        sa.Column("exp_month", sa.Integer(), nullable=True),
        sa.Column("exp_year", sa.Integer(), nullable=True),
        _timestamp("created_at"),
        _timestamp("deleted_at", nullable=True),
        _timestamp("detach_at", nullable=True),
        sa.PrimaryKeyConstraint("saved_method_id", name=op.f("pk_saved_method")),
        sa.UniqueConstraint("provider", "token", name=op.f("uq_saved_method_provider_token")),
        *_checks("saved_method", SAVED_METHOD_CHECKS),
        schema=SCHEMA,
    )
    of_user = ["user_id", "created_at", "saved_method_id"]
    _index("ix_saved_method_of_user", "saved_method", of_user, where="deleted_at IS NULL")
    _index(
        "ix_saved_method_detach_at", "saved_method", ["detach_at"], where="detach_at IS NOT NULL"
    )


SAVED_METHOD_CHECKS = {
    "last4": "last4 ~ '^[0-9]{4}$'",
    "detached": "detach_at IS NULL OR deleted_at IS NOT NULL",
}


def _webhook_event() -> None:
    op.create_table(
        "webhook_event",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("dispute_reference", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        _timestamp("received_at"),
        _timestamp("due_at"),
        _timestamp("applied_at", nullable=True),
        sa.PrimaryKeyConstraint("provider", "event_id", name=op.f("pk_webhook_event")),
        *_checks("webhook_event", WEBHOOK_EVENT_CHECKS),
        schema=SCHEMA,
    )
    _index("ix_webhook_event_pending", "webhook_event", ["due_at"], where="state = 'pending'")


def _sandbox() -> None:
    op.create_table(
        "sandbox_charge",
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        *_amounts("amount"),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("failure_code", sa.Text(), nullable=True),
        *_amounts("captured", "refunded"),
        _timestamp("expires_at", nullable=True),
        _timestamp("created_at"),
        sa.PrimaryKeyConstraint("operation_id", name=op.f("pk_sandbox_charge")),
        *_checks("sandbox_charge", SANDBOX_CHARGE_CHECKS),
        schema=SCHEMA,
    )
    op.create_table(
        "sandbox_capture",
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("charge_operation_id", sa.Uuid(), nullable=True),
        *_amounts("amount"),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("is_final", sa.Boolean(), nullable=False),
        _timestamp("created_at"),
        sa.PrimaryKeyConstraint("operation_id", name=op.f("pk_sandbox_capture")),
        *_checks("sandbox_capture", SANDBOX_CAPTURE_CHECKS),
        schema=SCHEMA,
    )
    op.create_table(
        "sandbox_refund",
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("charge_operation_id", sa.Uuid(), nullable=True),
        *_amounts("amount"),
        sa.Column("currency", sa.Text(), nullable=False),
        _timestamp("created_at"),
        sa.PrimaryKeyConstraint("operation_id", name=op.f("pk_sandbox_refund")),
        *_checks("sandbox_refund", SANDBOX_REFUND_CHECKS),
        schema=SCHEMA,
    )
    op.create_table(
        "sandbox_saved_method",
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("customer", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("is_attached", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("token", name=op.f("pk_sandbox_saved_method")),
        schema=SCHEMA,
    )


SANDBOX_CHARGE_CHECKS = {
    "status": "status IN ('succeeded', 'failed', 'requires_action', 'authorized', 'voided',"
    " 'closed')",
    "captured": "0 <= captured AND captured <= amount"
    " AND (captured = 0 OR status IN ('succeeded', 'authorized'))",
    "refunded": "0 <= refunded AND refunded <= captured",
}
SANDBOX_CAPTURE_CHECKS = {
    "kind": "kind IN ('capture', 'void')",
    "status": "status IN ('succeeded', 'failed', 'closed')",
    "amount": "amount >= 0",
}
SANDBOX_REFUND_CHECKS = {
    "status": "status IN ('succeeded', 'failed', 'closed')",
    "amount": "amount >= 0",
}


def _reconciliation() -> None:
    op.create_table(
        "reconciliation",
        sa.Column("reconciliation_id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        _timestamp("starts_at"),
        _timestamp("ends_at"),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("listed_differences", sa.Integer(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        _timestamp("started_at"),
        _timestamp("finished_at", nullable=True),
        _timestamp("due_at"),
        sa.PrimaryKeyConstraint("reconciliation_id", name=op.f("pk_reconciliation")),
        sa.UniqueConstraint(
            "provider",
            "starts_at",
            "ends_at",
            name=op.f("uq_reconciliation_provider_starts_at_ends_at"),
        ),
        *_checks("reconciliation", RECONCILIATION_CHECKS),
        schema=SCHEMA,
    )
    _index("ix_reconciliation_period", "reconciliation", ["starts_at", "reconciliation_id"])
    op.create_table(
        "reconciliation_difference",
        sa.Column("reconciliation_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("difference", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint(
            "reconciliation_id", "position", name=op.f("pk_reconciliation_difference")
        ),
        _foreign_key(
            "reconciliation_difference", "reconciliation_id", "reconciliation.reconciliation_id"
        ),
        schema=SCHEMA,
    )


RECONCILIATION_CHECKS = {
    "status": "status IN ('running', 'completed', 'failed')",
    "period": "starts_at < ends_at",
}


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        *_envelope(),
        _timestamp("published_at", nullable=True),
        _timestamp("confirmed_at", nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_outbox")),
        sa.UniqueConstraint("event_id", name=op.f("uq_outbox_event_id")),
        schema=SCHEMA,
    )
    _index("ix_outbox_unpublished", "outbox", ["seq"], where="published_at IS NULL")
    _index(
        "ix_outbox_unconfirmed",
        "outbox",
        ["seq"],
        where="published_at IS NOT NULL AND confirmed_at IS NULL",
    )
    _index("ix_outbox_confirmed_at", "outbox", ["confirmed_at"])


def _inbox() -> None:
    op.create_table(
        "inbox",
        sa.Column("handler", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("source_seq", sa.BigInteger(), nullable=False),
        *_envelope(),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        _timestamp("received_at"),
        _timestamp("due_at"),
        _timestamp("done_at", nullable=True),
        sa.PrimaryKeyConstraint("handler", "event_id", name=op.f("pk_inbox")),
        *_checks("inbox", {"state": "state IN ('waiting', 'done', 'dead')"}),
        schema=SCHEMA,
    )
    _index("ix_inbox_waiting", "inbox", ["position"], where="state = 'waiting'")
    _index("ix_inbox_waiting_key", "inbox", ["key", "position"], where="state = 'waiting'")
    _index("ix_inbox_done_at", "inbox", ["done_at"])


def _idempotency_record() -> None:
    op.create_table(
        "idempotency_record",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.Text(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        _timestamp("lease_until"),
        sa.Column("response", sa.Text(), nullable=True),
        _timestamp("expires_at"),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_idempotency_record")),
        schema=SCHEMA,
    )
    _index("ix_idempotency_record_expires_at", "idempotency_record", ["expires_at"])


def _envelope() -> list[sa.Column]:
    return [
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        _timestamp("occurred_at"),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=True),
    ]


def _timestamp(name: str, *, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=nullable)


def _checks(table: str, conditions: dict[str, str]) -> list[sa.CheckConstraint]:
    return [
        sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))
        for name, condition in conditions.items()
    ]


def _amounts(*names: str) -> list[sa.Column]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def _foreign_key(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column], [f"{SCHEMA}.{target}"], name=op.f(f"fk_{table}_{column}")
    )


def _index(
    name: str, table: str, columns: list[str], *, unique: bool = False, where: str | None = None
) -> None:
    op.create_index(
        op.f(name),
        table,
        columns,
        schema=SCHEMA,
        unique=unique,
        postgresql_where=sa.text(where) if where else None,
    )
