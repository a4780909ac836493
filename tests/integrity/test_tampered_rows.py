"""Each check names a row that was changed by SQL, without the application."""

import pytest

from markethall.container import ApplicationContainer
from markethall.operations.integrity import list_checks
from tests.integrity.conftest import check, wrong_rows
from tests.integrity_checks import tamper

# name -> (SQL statements, check that must find it, part of the problem)
TAMPERED = {
    "reserved above stock": (
        (
            "ALTER TABLE inventory.stock DROP CONSTRAINT ck_stock_reserved",
            "UPDATE inventory.stock SET reserved = on_hand + 1",
        ),
        "O1.reserved_within_stock",
        "reserved is",
    ),
    "on hand without a movement": (
        ("UPDATE inventory.stock SET on_hand = on_hand + 1",),
        "O1.on_hand_equals_movements",
        "the sum of its movements is",
    ),
    "reservation line lost": (
        ("DELETE FROM inventory.reservation_line WHERE status = 'committed'",),
        "O1.reserved_equals_reservations",
        "its live reservations have",
    ),
    "stock of a paid order given back": (
        ("UPDATE inventory.reservation SET status = 'released' WHERE status = 'committed'",),
        "O1.committed_stock_is_sold",
        "processing, its reservation",
    ),
    "stock of a cancelled order kept": (
        (
            (
                "UPDATE inventory.reservation SET status = 'committed' WHERE reservation_id ="
                " (SELECT reservation_id FROM orders.\"order\" WHERE status = 'cancelled')"
            ),
        ),
        "O1.committed_stock_is_sold",
        "is cancelled",
    ),
    "more captured than authorized": (
        (
            "ALTER TABLE payments.payment DROP CONSTRAINT ck_payment_captured",
            "UPDATE payments.payment SET captured = captured + 1 WHERE refunded = 500",
        ),
        "O2.amounts_within_limits",
        "captured is 3999, authorized 3998",
    ),
    "second charge": (
        (
            "DROP INDEX payments.uq_operation_one_succeeded_charge",
            (
                "UPDATE payments.operation SET payment_id ="
                " (SELECT payment_id FROM payments.payment WHERE refunded = 500)"
                " WHERE kind = 'charge' AND status = 'succeeded'"
            ),
        ),
        "O2.one_charge_per_payment",
        "3 charges have succeeded",
    ),
    "paid order without money": (
        (
            (
                "UPDATE orders.\"order\" SET status = 'processing', payment_status = 'paid'"
                " WHERE status = 'pending'"
            ),
        ),
        "O2.paid_orders_are_captured",
        "nothing is captured",
    ),
    "captured payment of an unpaid order": (
        (
            (
                "UPDATE orders.\"order\" SET status = 'cancelled', payment_status = 'none'"
                " WHERE payment_status = 'partially_refunded'"
            ),
        ),
        "O2.paid_orders_are_captured",
        "is captured",
    ),
    "captured payment without an order": (
        ("DELETE FROM orders.\"order\" WHERE payment_status = 'partially_refunded'",),
        "O2.paid_orders_are_captured",
        "3498 EUR are captured, but there is no order",
    ),
    "order without a payment": (
        ("DELETE FROM payments.payment WHERE status = 'created'",),
        "O2.paid_orders_are_captured",
        "does not exist",
    ),
    "refund unknown to the order": (
        ('UPDATE orders."order" SET refunded = 0 WHERE refunded = 500',),
        "O2.paid_orders_are_captured",
        "refunded is 0, of its payment 500",
    ),
    "units returned without a return": (
        (
            "ALTER TABLE orders.order_line DROP CONSTRAINT ck_order_line_returned",
            "UPDATE orders.order_line SET returned = 1",
        ),
        "O2.returns_match_lines",
        "in return are 0, returned 1 units; of its returns 0 and 0",
    ),
    "total changed": (
        (
            'ALTER TABLE orders."order" DROP CONSTRAINT ck_order_total',
            'UPDATE orders."order" SET total = total - 1 WHERE refunded = 500',
        ),
        "O3.total_equals_lines",
        "total is 3997, subtotal 3998",
    ),
    "line changed": (
        ("UPDATE orders.order_line SET quantity = 3, total = unit_price * 3",),
        "O3.total_equals_lines",
        "subtotal is 3998, the totals of its lines are 5997",
    ),
    "charged more than listed": (
        ("UPDATE payments.payment SET amount = amount + 100 WHERE status = 'created'",),
        "O3.charged_as_listed",
        "total is 3998 EUR",
    ),
    "posting changed": (
        (
            (
                "UPDATE payments.entry SET amount = amount + 1"
                " WHERE account = 'customers:payments' AND amount = 500"
            ),
        ),
        "O4.ledger_intact",
        "unbalanced",
    ),
    "cart checked out without an order": (
        (
            (
                "INSERT INTO orders.cart (cart_id, user_id, is_guest, status, metadata, order_id,"
                " created_at, updated_at, version) VALUES (gen_random_uuid(), gen_random_uuid(),"
                " false, 'checked_out', '{}', gen_random_uuid(), now(), now(), 2)"
            ),
        ),
        "O6.one_order_per_cart",
        "checked out, but order",
    ),
    "unique key dropped": (
        ("ALTER TABLE payments.webhook_event DROP CONSTRAINT pk_webhook_event",),
        "O6.unique_keys_exist",
        "index pk_webhook_event of webhook_event: missing",
    ),
    "use of a promotion not counted": (
        ("UPDATE orders.promotion SET used = 0",),
        "O7.uses_within_limits",
        "used is 0, 1 orders use it",
    ),
    "use of a promotion lost": (
        ("DELETE FROM orders.promotion_use",),
        "O7.discounted_orders_use_promotions",
        "pending, has the discount of promotion",
    ),
    "order pending for ever": (
        (
            (
                "UPDATE orders.\"order\" SET expires_at = now() - interval '1 hour'"
                " WHERE status = 'pending'"
            ),
        ),
        "O8.pending_orders_end",
        "pending, although it has expired",
    ),
    "reservation held for ever": (
        (
            (
                "UPDATE inventory.reservation SET expires_at = now() - interval '1 hour'"
                " WHERE status = 'held'"
            ),
        ),
        "O8.reservations_end",
        "held for order",
    ),
    "payment payable for ever": (
        (
            (
                "UPDATE payments.payment SET expires_at = now() - interval '1 hour'"
                " WHERE status = 'created'"
            ),
        ),
        "O8.payments_expire",
        "created, although it has expired",
    ),
    "operation open for ever": (
        (
            (
                "UPDATE payments.operation SET status = 'unknown', settled_at = NULL,"
                " created_at = now() - interval '1 hour' WHERE kind = 'refund' AND amount = 500"
            ),
        ),
        "O8.operations_settle",
        "refund at sandbox is unknown since",
    ),
    "event not published": (
        ("UPDATE orders.outbox SET published_at = NULL WHERE type = 'orders.order_paid'",),
        "O8.events_published",
        "orders.order_paid of",
    ),
    "delivery not processed": (
        (
            (
                "UPDATE orders.inbox SET state = 'waiting', done_at = NULL,"
                " due_at = now() - interval '1 hour' WHERE handler = 'orders.on_order_paid'"
            ),
        ),
        "O8.deliveries_processed",
        "inbox handler=orders.on_order_paid",
    ),
    "dead letter": (
        ("UPDATE orders.inbox SET state = 'dead', error = 'it broke'",),
        "O8.no_dead_letters",
        "it broke",
    ),
}


async def test_shop_with_all_kinds_of_orders_has_no_violation(
    container: ApplicationContainer,
) -> None:
    report = await check(container)

    assert wrong_rows(report) == {}
    assert report.status == "ok"
    assert {result.check.partition(".")[0] for result in report.checks} == {
        "O1", "O2", "O3", "O4", "O6", "O7", "O8",
    }  # fmt: skip


def test_each_check_of_the_built_in_contexts_has_a_tampered_row(
    container: ApplicationContainer,
) -> None:
    """Checks of webhooks and of the sandbox have their tests in tests/payments."""
    checks = {
        check.check_id
        for context in container.contexts
        for check in list_checks(container, context)
    }
    elsewhere = {
        "O2.amounts_equal_operations",
        "O2.sandbox_agrees",
        "O8.webhooks_applied",
        "O8.money_after_end_refunded",
    }
    assert checks - elsewhere == {check for _, check, _ in TAMPERED.values()}


@pytest.mark.parametrize("name", TAMPERED)
async def test_tampered_row_is_named(
    container: ApplicationContainer, own_database_url: str, name: str
) -> None:
    statements, check_id, problem = TAMPERED[name]
    await tamper(own_database_url, *statements)

    report = await check(container)

    assert report.status == "violated"
    assert problem in "\n".join(wrong_rows(report)[check_id])
