"""Random sequences of commands, webhooks, crashes and clock steps keep the invariants."""

import asyncio
import os
from collections import Counter
from collections.abc import Coroutine, Iterator
from datetime import timedelta
from typing import Any, ClassVar, Final, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from markethall.payments.contract import PaymentStatus, RefundPayment
from markethall.payments.contract.api import OperationView, PaymentView
from markethall.payments.contract.statuses import OperationKind, OperationStatus
from markethall.payments.gateway.sandbox import SANDBOX_METHODS
from markethall.payments.ports import PaymentGatewayTimeout
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money
from markethall.shared.kernel.pagination import PageQuery
from markethall.shared.persistence.postgres import PoolSize, Postgres
from tests.integrity_checks import find_violations
from tests.payments.conftest import (
    ORDERS_CONTEXT,
    STAFF,
    Killed,
    PaymentsApp,
    attempt_without_key,
    build_payments_app,
    charge_request,
)
from tests.payments.money_model import MoneyModel, ReportingGateway

T = TypeVar("T")
FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
# the number of random sequences; `make test-payments` runs more, with random seeds
EXAMPLES: Final = [("memory", 500), ("sql", 100)] if FULL else [("memory", 60), ("sql", 12)]
Failure = type[BaseException] | None
FAILURES: st.SearchStrategy[Failure] = st.sampled_from(
    [None, None, None, None, PaymentGatewayTimeout, Killed]
)
METHODS = st.sampled_from(["sandbox_ok", "sandbox_ok", *sorted(SANDBOX_METHODS)])
AMOUNTS = st.none() | st.integers(1, 1000)
CURRENCIES = ("EUR", "JPY")
OPEN_STATUSES = {OperationStatus.PENDING, OperationStatus.UNKNOWN}
# no operation of a test is unfinished for so long, so none counts as hanging
NOTHING_HANGS = timedelta(days=365)
ENDED_STATUSES = {
    PaymentStatus.CAPTURED,
    PaymentStatus.CANCELLED,
    PaymentStatus.EXPIRED,
    PaymentStatus.VOIDED,
}
# the lifetime of an authorization at the sandbox
WEEK_SECONDS = 7 * 24 * 3600


class PaymentMachine(RuleBasedStateMachine):
    storage: ClassVar[str]
    payments_capture: ClassVar[str]
    postgres: ClassVar[Postgres | None]
    loop: ClassVar[asyncio.AbstractEventLoop]

    opened: Bundle[PaymentView] = Bundle("opened")
    attempts: Bundle[tuple[PaymentView, IdempotentCommand]] = Bundle("attempts")
    captures: Bundle[tuple[PaymentView, IdempotentCommand]] = Bundle("captures")
    refunds: Bundle[tuple[PaymentView, UUID]] = Bundle("refunds")

    @initialize(target=opened)
    def start(self) -> PaymentView:
        self.payments_app: PaymentsApp = build_payments_app(
            self.storage, self.postgres, payments_capture=self.payments_capture
        )
        self.model = MoneyModel()
        gateway = self.payments_app.gateway
        gateway._gateway = ReportingGateway(gateway._gateway, self.model)
        self.payments: list[PaymentView] = []
        _, self.held_before = self.account_sums()
        return self.new_payment()

    @precondition(lambda self: len(self.payments) < 3)
    @rule(target=opened)
    def open(self) -> PaymentView:
        return self.new_payment()

    def new_payment(self) -> PaymentView:
        currency = CURRENCIES[len(self.payments) % len(CURRENCIES)]
        payment = self.run(self.payments_app.open(1000, currency))
        self.payments.append(payment)
        self.model.open(payment.payment_id, 1000, currency)
        return payment

    @rule(target=attempts, payment=opened, method=METHODS, before=FAILURES, after=FAILURES)
    def confirm(
        self, payment: PaymentView, method: str, before: Failure, after: Failure
    ) -> tuple[PaymentView, IdempotentCommand]:
        attempt = attempt_without_key()
        self.confirm_again((payment, attempt), method, before, after)
        return payment, attempt

    @rule(pair=attempts, method=METHODS, before=FAILURES, after=FAILURES)
    def confirm_again(
        self,
        pair: tuple[PaymentView, IdempotentCommand],
        method: str,
        before: Failure,
        after: Failure,
    ) -> None:
        self.fail_calls(before, after)
        self.allow_rejection(self.payments_app.confirm(pair[0], method, pair[1]))

    @rule(pair=attempts)
    def webhook(self, pair: tuple[PaymentView, IdempotentCommand]) -> None:
        """Send a webhook with the outcome at the provider, at any time and any number of times."""
        request = charge_request(pair[1].id, Money(amount=1000, currency=pair[0].amount.currency))
        outcome = self.run(self.payments_app.gateway.lookup(request))
        if outcome:
            is_charge = self.payments_capture == "automatic"
            kind = OperationKind.CHARGE if is_charge else OperationKind.AUTHORIZE
            self.run(self.payments_app.send(pair[1].id, outcome, kind))

    @rule(target=refunds, payment=opened, amount=AMOUNTS, before=FAILURES, after=FAILURES)
    def refund(
        self, payment: PaymentView, amount: int | None, before: Failure, after: Failure
    ) -> tuple[PaymentView, UUID]:
        refund_id = new_id()
        self.refund_again((payment, refund_id), amount, before, after)
        return payment, refund_id

    @rule(pair=refunds, amount=AMOUNTS, before=FAILURES, after=FAILURES)
    def refund_again(
        self, pair: tuple[PaymentView, UUID], amount: int | None, before: Failure, after: Failure
    ) -> None:
        self.fail_calls(before, after)
        payment, refund_id = pair
        money = None if amount is None else Money(amount=amount, currency=payment.amount.currency)
        command = RefundPayment(
            payment_id=payment.payment_id, refund_id=refund_id, amount=money, reason="returned"
        )
        self.allow_rejection(self.payments_app.payments.refund(ORDERS_CONTEXT, command))

    @rule(
        target=captures,
        payment=opened,
        amount=AMOUNTS,
        is_final=st.booleans(),
        before=FAILURES,
        after=FAILURES,
    )
    def capture(
        self,
        payment: PaymentView,
        amount: int | None,
        is_final: bool,
        before: Failure,
        after: Failure,
    ) -> tuple[PaymentView, IdempotentCommand]:
        pair = payment, attempt_without_key()
        self.capture_again(pair, amount, is_final, before, after)
        return pair

    @rule(pair=captures, amount=AMOUNTS, is_final=st.booleans(), before=FAILURES, after=FAILURES)
    def capture_again(
        self,
        pair: tuple[PaymentView, IdempotentCommand],
        amount: int | None,
        is_final: bool,
        before: Failure,
        after: Failure,
    ) -> None:
        payment, attempt = pair
        self.fail_calls(before, after)
        money = None if amount is None else Money(amount=amount, currency=payment.amount.currency)
        self.allow_rejection(
            self.payments_app.payment_api.capture(
                STAFF, payment.payment_id, money, attempt, is_final=is_final
            )
        )

    @rule(payment=opened, before=FAILURES, after=FAILURES)
    def void(self, payment: PaymentView, before: Failure, after: Failure) -> None:
        self.fail_calls(before, after)
        self.allow_rejection(self.payments_app.void(payment))

    @rule(payment=opened)
    def cancel(self, payment: PaymentView) -> None:
        self.allow_rejection(self.payments_app.payments.cancel(ORDERS_CONTEXT, payment.payment_id))

    @rule(seconds=st.sampled_from([1, 16, 16, 16, 300, WEEK_SECONDS]))
    def advance_time(self, seconds: int) -> None:
        self.payments_app.clock.advance(seconds)
        self.run(self.payments_app.run_periodic_jobs())

    @invariant()
    def the_shop_records_the_money_of_the_provider(self) -> None:
        """While an operation is open, the provider may have moved more than the shop knows."""
        for payment in self.payments:
            now, money = self.current(payment), self.model.payments[payment.payment_id]
            recorded = (now.captured.amount, now.refunded.amount)
            assert now.refunded.amount <= now.captured.amount <= now.amount.amount
            assert now.captured.amount <= money.taken
            assert now.refunded.amount <= money.returned
            if not self.open_operations(payment):
                assert recorded == (money.taken, money.returned)

    @invariant()
    def the_ledger_balances(self) -> None:
        """Accounts sum to zero by currency; provider accounts hold captures minus refunds."""
        report = self.run(self.payments_app.ledger.verify(STAFF))
        assert report.intact, report.findings
        sums, held = self.account_sums()
        recorded = Counter(self.held_before)
        for payment in map(self.current, self.payments):
            recorded[payment.amount.currency] += payment.captured.amount - payment.refunded.amount
        assert not any(sums.values()), sums
        assert held == recorded

    @invariant()
    def the_integrity_checks_find_no_violation(self) -> None:
        checks = self.payments_app.container.integrity_checks()
        assert self.run(find_violations(checks, NOTHING_HANGS)) == {}

    def teardown(self) -> None:
        """Run the jobs, which settle all open operations. Compare the shop with the model."""
        if not hasattr(self, "payments_app"):
            return
        self.fail_calls(None, None)
        self.advance_time(1000)
        self.advance_time(WEEK_SECONDS)
        self.advance_time(1000)
        for payment in self.payments:
            assert self.current(payment).status in ENDED_STATUSES
            assert not self.open_operations(payment)
        self.the_shop_records_the_money_of_the_provider()
        self.the_ledger_balances()

    def account_sums(self) -> tuple[Counter[str], Counter[str]]:
        """Return, by currency, the sum of all accounts and the sum of the provider accounts.

        On Postgres, both include the payments of earlier sequences.
        """
        sums, held = Counter[str](), Counter[str]()
        for account in self.run(self.payments_app.ledger.list_account_balances(STAFF)):
            sums[account.balance.currency] += account.balance.amount
            if account.account.startswith("provider:"):
                held[account.balance.currency] += account.balance.amount
        return sums, held

    def current(self, payment: PaymentView) -> PaymentView:
        return self.run(self.payments_app.current(payment))

    def open_operations(self, payment: PaymentView) -> list[OperationView]:
        page = self.payments_app.payment_api.list_operations(
            STAFF, payment.payment_id, PageQuery(limit=100)
        )
        return [one for one in self.run(page).items if one.status in OPEN_STATUSES]

    def fail_calls(self, before: Failure, after: Failure) -> None:
        self.payments_app.gateway.before = before() if before else None
        self.payments_app.gateway.after = after() if after else None

    def allow_rejection(self, command: Coroutine[Any, Any, object]) -> None:
        try:
            self.run(command)
        except (DomainError, Killed):
            return
        finally:
            self.fail_calls(None, None)

    def run(self, command: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(command)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Create an event loop for the machine, because Hypothesis rules cannot be coroutines."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize("payments_capture", ["automatic", "on_fulfilment"])
@pytest.mark.parametrize(("storage", "examples"), EXAMPLES)
def test_any_command_sequence_keeps_invariants(
    storage: str,
    examples: int,
    payments_capture: str,
    loop: asyncio.AbstractEventLoop,
    request: pytest.FixtureRequest,
) -> None:
    postgres = None
    if storage == "sql":
        url = request.getfixturevalue("database_url")
        postgres = Postgres(url, PoolSize(min_size=1, max_size=5, timeout=10))
    configuration = {
        "storage": storage,
        "payments_capture": payments_capture,
        "postgres": postgres,
        "loop": loop,
    }
    machine = type("Machine", (PaymentMachine,), configuration)

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            database=None,
            derandomize=not FULL,
            suppress_health_check=list(HealthCheck),
        ),
    )

    if postgres:
        loop.run_until_complete(postgres.close())
