"""The integrity checks of orders, also those that compare orders with other contexts.

A rule about an order and its payment or reservation holds only after the events have been handled.
So an order that has changed within the grace period, and a payment that was settled within it, are
not judged. The other context is read first, so a change between the two reads is within the grace
period.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final
from uuid import UUID

from markethall.inventory.contract import Inventory, ListReservationStates, ReservationState
from markethall.orders.domain.integrity import (
    OrderLink,
    PaymentFacts,
    ReservationFacts,
    judge_amount,
    judge_cart,
    judge_paid,
    judge_pending,
    judge_reserved,
    judge_total,
)
from markethall.orders.domain.promotion_integrity import judge_counts, judge_discounts
from markethall.orders.domain.return_integrity import judge_returns
from markethall.orders.ports import OrderIntegrityReads
from markethall.orders.service.checkout import ContextClients
from markethall.payments.contract import ListPaymentStates, Payments, PaymentState
from markethall.shared.kernel.call_context import system_context
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.integrity import Findings, IntegrityCheck, OffendingRow, scan_pages
from markethall.shared.persistence.database import SnapshotDatabase

# the number of states in one page of another context
_PAGE_SIZE: Final = 250
_LAST_ID: Final = UUID(int=2**128 - 1)

JudgePayment = Callable[[OrderLink | None, PaymentFacts | None], Iterable[OffendingRow]]


class OrderIntegrity:
    def __init__(
        self,
        clients: ContextClients,
        snapshots: SnapshotDatabase[OrderIntegrityReads],
        clock: Clock,
    ) -> None:
        self._payments: Payments = clients.payments
        self._inventory: Inventory = clients.inventory
        self._snapshots = snapshots
        self._clock = clock

    def list_checks(self) -> Sequence[IntegrityCheck]:
        return [
            IntegrityCheck(
                "O1.committed_stock_is_sold",
                "The stock of a paid order is committed, and no other stock is.",
                self._compare_with_reservations,
            ),
            self._payment_check(
                "O2.paid_orders_are_captured",
                "An order is paid if its payment is captured, with the same refunds.",
                judge_paid,
            ),
            IntegrityCheck(
                "O2.returns_match_lines",
                "Units and refunds of returns are those of the lines of their orders.",
                self._find_wrong_returns,
            ),
            self._payment_check(
                "O3.charged_as_listed",
                "The payment of an order asks for the total of the order.",
                judge_amount,
            ),
            IntegrityCheck(
                "O3.total_equals_lines",
                "The total of an order is that of its lines, less the discount, with shipping and"
                " tax.",
                self._find_wrong_totals,
            ),
            IntegrityCheck(
                "O6.one_order_per_cart",
                "A cart that is checked out has one order, and no other cart has orders.",
                self._find_wrong_carts,
            ),
            IntegrityCheck(
                "O7.uses_within_limits",
                "The counters of a promotion count its uses, and no limit is exceeded.",
                self._find_wrong_counts,
            ),
            IntegrityCheck(
                "O7.discounted_orders_use_promotions",
                "An order uses the promotions of its discounts until it is cancelled or expired.",
                self._find_wrong_uses,
            ),
            IntegrityCheck(
                "O8.pending_orders_end", "No order is pending after its expiry.", self._find_overdue
            ),
        ]

    async def _find_wrong_totals(self, findings: Findings, _: timedelta) -> None:
        async with self._snapshots.snapshot() as reads:
            await scan_pages(
                reads.list_order_sums, lambda sums: sums.order_id, judge_total, findings
            )

    async def _find_wrong_returns(self, findings: Findings, _: timedelta) -> None:
        async with self._snapshots.snapshot() as reads:
            await scan_pages(
                reads.list_returned_lines, lambda line: line.line_id, judge_returns, findings
            )

    async def _find_wrong_carts(self, findings: Findings, _: timedelta) -> None:
        async with self._snapshots.snapshot() as reads:
            await scan_pages(
                reads.list_ordered_carts, lambda cart: cart.cart_id, judge_cart, findings
            )

    async def _find_wrong_counts(self, findings: Findings, _: timedelta) -> None:
        async with self._snapshots.snapshot() as reads:
            await scan_pages(
                reads.list_promotion_counts,
                lambda counts: counts.promotion_id,
                judge_counts,
                findings,
            )

    async def _find_wrong_uses(self, findings: Findings, _: timedelta) -> None:
        async with self._snapshots.snapshot() as reads:
            await scan_pages(
                reads.list_discounted_orders,
                lambda order: order.order_id,
                judge_discounts,
                findings,
            )

    async def _find_overdue(self, findings: Findings, grace: timedelta) -> None:
        before = self._clock() - grace
        async with self._snapshots.snapshot() as reads:
            await scan_pages(
                lambda after, limit: reads.list_overdue_orders(before, after, limit),
                lambda order: (order.expires_at, order.order_id),
                judge_pending,
                findings,
            )

    def _payment_check(self, check_id: str, rule: str, judge: JudgePayment) -> IntegrityCheck:
        async def find(findings: Findings, grace: timedelta) -> None:
            settled_before = self._clock() - grace
            async for order, payment in self._pairs_with_payments():
                findings.count_checked(1)
                if _is_settled(order, settled_before) and _is_old(payment, settled_before):
                    findings.add(*judge(order, payment))

        return IntegrityCheck(check_id, rule, find)

    async def _compare_with_reservations(self, findings: Findings, grace: timedelta) -> None:
        settled_before = self._clock() - grace
        async for order, reservations in self._pairs_with_reservations():
            findings.count_checked(1)
            if _is_settled(order, settled_before):
                findings.add(*judge_reserved(order, reservations))

    async def _pairs_with_payments(
        self,
    ) -> AsyncIterator[tuple[OrderLink | None, PaymentFacts | None]]:
        """Yield each order with its payment, or None; and each payment without an order."""
        after: UUID | None = None
        while after != _LAST_ID:
            page = await self._payments.list_payment_states(
                system_context("orders.integrity"),
                ListPaymentStates(after_payment_id=after, limit=_PAGE_SIZE),
            )
            until = page.items[-1].payment_id if len(page.items) == _PAGE_SIZE else _LAST_ID
            payments = {state.payment_id: _payment_facts(state) for state in page.items}
            async for order in self._list_orders(after, until, by_payment=True):
                yield order, payments.pop(order.payment_id, None)
            for payment in payments.values():
                yield None, payment
            after = until

    async def _pairs_with_reservations(
        self,
    ) -> AsyncIterator[tuple[OrderLink | None, tuple[ReservationFacts, ...]]]:
        """Yield each order with its reservations, and reservations without an order."""
        after: UUID | None = None
        while after != _LAST_ID:
            page = await self._inventory.list_reservation_states(
                system_context("orders.integrity"),
                ListReservationStates(
                    after_order_id=after,
                    after_reservation_id=_LAST_ID if after else None,
                    limit=_PAGE_SIZE,
                ),
            )
            by_order = _group_by_order(page.items)
            until = _LAST_ID
            if len(page.items) == _PAGE_SIZE and len(by_order) > 1:
                # the page may end between the reservations of one order, so the last is read again
                by_order.popitem()
                until = next(reversed(by_order))
            async for order in self._list_orders(after, until, by_payment=False):
                yield order, by_order.pop(order.order_id, ())
            for reservations in by_order.values():
                yield None, reservations
            after = until

    async def _list_orders(
        self, after: UUID | None, until: UUID, *, by_payment: bool
    ) -> AsyncIterator[OrderLink]:
        """Yield the orders with ids, or payment ids, after `after` and up to `until`."""
        while True:
            async with self._snapshots.snapshot() as reads:
                read = reads.list_links_by_payment if by_payment else reads.list_links_by_order
                page = await read(after, until, _PAGE_SIZE)
            for order in page:
                yield order
            if len(page) < _PAGE_SIZE:
                return
            after = page[-1].payment_id if by_payment else page[-1].order_id


def _is_settled(order: OrderLink | None, before: datetime) -> bool:
    return order is None or order.updated_at < before


def _is_old(payment: PaymentFacts | None, before: datetime) -> bool:
    return payment is None or payment.settled_at is None or payment.settled_at < before


def _payment_facts(state: PaymentState) -> PaymentFacts:
    return PaymentFacts(
        payment_id=state.payment_id,
        order_id=state.order_id,
        status=state.status,
        currency=state.amount.currency,
        amount=state.amount.amount,
        captured=state.captured.amount,
        refunded=state.refunded.amount,
        settled_at=state.settled_at,
    )


def _group_by_order(states: Iterable[ReservationState]) -> dict[UUID, tuple[ReservationFacts, ...]]:
    """Group states, which are sorted by order id."""
    return {
        order_id: tuple(
            ReservationFacts(state.reservation_id, state.order_id, state.status) for state in group
        )
        for order_id, group in groupby(states, key=lambda state: state.order_id)
    }
