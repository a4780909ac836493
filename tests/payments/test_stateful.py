"""Random sequences of commands, webhooks, crashes and clock steps keep the invariants."""

import asyncio
import os
from collections.abc import Coroutine, Iterator
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

from markethall.payments.contract import OperationStatus, PaymentStatus, PaymentView
from markethall.payments.gateway.sandbox import SANDBOX_METHODS
from markethall.payments.ports import PaymentGatewayTimeout, SandboxCharge
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import PageQuery
from markethall.shared.persistence.postgres import PoolSize, Postgres
from tests.payments.conftest import (
    ORDERS_CONTEXT,
    STAFF,
    Killed,
    PaymentsApp,
    attempt_without_key,
    build_payments_app,
    charge_request,
)

T = TypeVar("T")
FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
# the number of random sequences; `make test-payments` runs more, and always other ones
EXAMPLES: Final = [("memory", 1000), ("sql", 200)] if FULL else [("memory", 100), ("sql", 25)]
Failure = type[BaseException] | None
FAILURES: st.SearchStrategy[Failure] = st.sampled_from(
    [None, None, None, None, PaymentGatewayTimeout, Killed]
)
METHODS = st.sampled_from(["sandbox_ok", "sandbox_ok", *sorted(SANDBOX_METHODS)])
AMOUNTS = st.none() | st.integers(1, 1000)
ENDED_STATUSES = {PaymentStatus.CAPTURED, PaymentStatus.CANCELLED, PaymentStatus.EXPIRED}


class PaymentMachine(RuleBasedStateMachine):
    storage: ClassVar[str]
    postgres: ClassVar[Postgres | None]
    loop: ClassVar[asyncio.AbstractEventLoop]

    opened: Bundle[PaymentView] = Bundle("opened")
    attempts: Bundle[tuple[PaymentView, IdempotentCommand]] = Bundle("attempts")
    refunds: Bundle[tuple[PaymentView, UUID]] = Bundle("refunds")

    @initialize(target=opened)
    def start(self) -> PaymentView:
        self.payments_app: PaymentsApp = build_payments_app(self.storage, self.postgres)
        self.payments: list[PaymentView] = []
        self.charge_ids: dict[UUID, list[UUID]] = {}
        return self.new_payment()

    @precondition(lambda self: len(self.payments) < 3)
    @rule(target=opened)
    def open(self) -> PaymentView:
        return self.new_payment()

    def new_payment(self) -> PaymentView:
        payment = self.run(self.payments_app.open(1000))
        self.payments.append(payment)
        self.charge_ids[payment.payment_id] = []
        return payment

    @rule(target=attempts, payment=opened, method=METHODS, before=FAILURES, after=FAILURES)
    def confirm(
        self, payment: PaymentView, method: str, before: Failure, after: Failure
    ) -> tuple[PaymentView, IdempotentCommand]:
        attempt = attempt_without_key()
        self.charge_ids[payment.payment_id].append(attempt.id)
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
        outcome = self.run(self.payments_app.gateway.lookup(charge_request(pair[1].id)))
        if outcome:
            self.run(self.payments_app.send(pair[1].id, outcome))

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
        self.allow_rejection(self.payments_app.refund(pair[0], amount, pair[1]))

    @rule(payment=opened)
    def cancel(self, payment: PaymentView) -> None:
        self.allow_rejection(self.payments_app.payments.cancel(ORDERS_CONTEXT, payment.payment_id))

    @rule(seconds=st.sampled_from([1, 16, 16, 300]))
    def advance_time(self, seconds: int) -> None:
        self.payments_app.clock.advance(seconds)
        self.run(self.payments_app.run_periodic_jobs())

    @invariant()
    def captured_and_refunded_stay_within_bounds(self) -> None:
        for payment in self.payments:
            now = self.run(self.payments_app.current(payment))
            assert now.captured.amount <= now.amount.amount
            assert now.refunded.amount <= now.captured.amount
            assert len(self.charged(payment)) <= 1

    @invariant()
    def the_ledger_balances(self) -> None:
        report = self.run(self.payments_app.ledger.verify(STAFF))
        assert report.intact, report

    def teardown(self) -> None:
        """Run the jobs, which settle all open operations. Compare payments with the sandbox."""
        if not hasattr(self, "payments_app"):
            return
        self.fail_calls(None, None)
        self.advance_time(1000)
        self.advance_time(1000)
        for payment in self.payments:
            self.assert_matches_sandbox(payment)

    def assert_matches_sandbox(self, payment: PaymentView) -> None:
        now = self.run(self.payments_app.current(payment))
        assert now.status in ENDED_STATUSES
        page = self.payments_app.payment_api.list_operations(
            STAFF, payment.payment_id, PageQuery(limit=100)
        )
        settled = {OperationStatus.SUCCEEDED, OperationStatus.FAILED}
        assert {one.status for one in self.run(page).items} <= settled
        taken = [(charge.amount, charge.refunded) for charge in self.charged(payment)]
        paid = now.status is PaymentStatus.CAPTURED
        assert taken == ([(now.captured.amount, now.refunded.amount)] if paid else [])

    def charged(self, payment: PaymentView) -> list[SandboxCharge]:
        found = [
            self.run(self.payments_app.sandbox_ledger.get_charge(charge_id))
            for charge_id in self.charge_ids[payment.payment_id]
        ]
        return [charge for charge in found if charge and charge.status == "succeeded"]

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


@pytest.mark.parametrize(("storage", "examples"), EXAMPLES)
def test_any_command_sequence_keeps_invariants(
    storage: str,
    examples: int,
    loop: asyncio.AbstractEventLoop,
    request: pytest.FixtureRequest,
) -> None:
    postgres = None
    if storage == "sql":
        url = request.getfixturevalue("database_url")
        postgres = Postgres(url, PoolSize(min_size=1, max_size=5, timeout=10))
    machine = type(
        "Machine", (PaymentMachine,), {"storage": storage, "postgres": postgres, "loop": loop}
    )

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
