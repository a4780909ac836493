"""How one call comes to be two, local and remote: a plugin of pytest that plants a mistake.

`pytest -p tests.wire.drifts --drift NAME` runs with the mistake. See test_drifts.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import pytest
import structlog
from starlette.requests import Request

INVENTORY: Final = "tests/inventory/test_contract.py"
PAYMENTS: Final = "tests/payments/test_contract.py"
USERS: Final = "tests/users/test_contract.py"
VALUES: Final = "tests/wire/test_values.py"
# in the suites `remote` is the wire to the service on Postgres
SQL: Final = ("[sql]", "[remote]")
BOTH_WAYS: Final = "tests/wire/test_both_ways.py"


def a_field_is_lost_in_what_is_asked() -> None:
    remote = module("payments.remote").RemotePayments
    refund = remote.refund

    async def drifted(self: Any, call: Any, command: Any) -> Any:
        return await refund(self, call, command.model_copy(update={"amount": None}))

    remote.refund = drifted


def a_field_is_lost_in_what_is_answered() -> None:
    remote = module("users.remote")
    ready = remote.ready
    remote.ready = lambda dto: ready(dto.model_copy(update={"email": ""}))


def a_field_is_lost_in_the_rows() -> None:
    store = module("inventory.sql.stock_rows")
    line = store._line
    store._line = lambda row: line({**row, "name": row["sku"]})


def a_refusal_loses_its_details() -> None:
    module("shared.wire")._details = lambda _: {}


def a_refusal_loses_its_class() -> None:
    """As when a code is not known at the calling end."""
    module("payments.contract").RefundExceedsCaptured.code = "payments.unheard_of"


def a_live_row_is_handed_out() -> None:
    table = module("shared.memory.tables").Table
    begin = table.__init__
    table.__init__ = lambda self, *_, **rows: begin(self, lambda row: row, **rows)


def an_answer_can_be_changed() -> None:
    refund = module("payments.contract").Refund
    refund.model_config["frozen"] = False
    refund.model_rebuild(force=True)


def a_row_is_not_locked() -> None:
    statements = module("payments.sql.statements")
    statements.LOCKED_PAYMENT = statements.PAYMENT


def a_check_and_its_act_are_two() -> None:
    """As if what is there had been looked up before, and is taken whatever it is by now."""
    statements = module("inventory.sql.reservations")
    for take in (statements.TAKE, statements.RESERVE_AT_ONCE):
        take._compile()
        for enough in ("stock.reserved >= ", "ELSE 0 END >= "):
            take._sql = take._sql.replace(enough, f"{enough}-1000000 + ")
        assert "-1000000" in take._sql


def no_guard_in_process() -> None:
    _without_guard(here=True)


def no_guard_on_the_wire() -> None:
    _without_guard(here=False)


def _without_guard(*, here: bool) -> None:
    """Before the container is read, which keeps what it found."""
    guard = module("shared.guard")
    guarded = guard.guarded

    def drifted(service: Any, its_guard: Any) -> Any:
        is_here = not type(service).__name__.startswith("Remote")
        return service if is_here is here else guarded(service, its_guard)

    guard.guarded = drifted


def no_table_at_the_inner_door() -> None:
    policy = module("shared.serving").ServicePolicy

    async def drifted(self: Any, request: Request) -> Any:
        self._identity(request)
        return request.scope["state"]["call"]

    policy.__call__ = drifted


def module(name: str) -> Any:
    """Read when the mistake is planted, and not before."""
    return import_module(f"markethall.{name}")


@dataclass(frozen=True)
class Drift:
    """`tests` are run, in all their variants; those with one of `caught_by` in it must fail."""

    plant: Callable[[], None]
    tests: tuple[str, ...]
    caught_by: tuple[str, ...]


DRIFTS: Final[Mapping[str, Drift]] = {
    drift.plant.__name__: drift
    for drift in (
        Drift(
            a_field_is_lost_in_what_is_asked,
            (f"{PAYMENTS}::test_a_refund_gives_back_a_part",),
            ("[remote]",),
        ),
        Drift(
            a_field_is_lost_in_what_is_answered,
            (f"{USERS}::test_neighbours_learn_who_is_active",),
            ("[remote]",),
        ),
        Drift(
            a_field_is_lost_in_the_rows,
            (f"{INVENTORY}::test_a_reservation_keeps_the_price_and_name_of_the_moment",),
            SQL,
        ),
        Drift(
            a_refusal_loses_its_details,
            (
                f"{INVENTORY}::test_all_short_lines_are_named_and_nothing_is_held",
                f"{PAYMENTS}::test_an_order_has_one_payment",
                f"{USERS}::test_nobody_is_found_under_an_unknown_id",
            ),
            ("[remote]",),
        ),
        Drift(
            a_refusal_loses_its_class,
            (f"{PAYMENTS}::test_nothing_is_left_after_the_last_refund",),
            ("[remote]",),
        ),
        Drift(
            a_live_row_is_handed_out,
            (f"{INVENTORY}::test_a_late_commit_takes_what_other_expired_holds_have",),
            ("[memory]",),
        ),
        Drift(
            an_answer_can_be_changed,
            (f"{VALUES}::test_what_crosses_is_immutable_to_the_bottom",),
            ("[payments-refund]",),
        ),
        Drift(
            a_row_is_not_locked,
            ("tests/payments/test_races.py::test_many_refunds_never_exceed_what_was_captured",),
            SQL,
        ),
        Drift(
            a_check_and_its_act_are_two,
            (f"{INVENTORY}::test_fifty_buyers_get_the_seven_that_are_left",),
            SQL,
        ),
        Drift(
            no_guard_in_process,
            (f"{BOTH_WAYS}::test_nobody_is_called_with_a_transaction_open",),
            ("[together-",),
        ),
        Drift(
            no_guard_on_the_wire,
            (f"{BOTH_WAYS}::test_nobody_is_called_with_a_transaction_open",),
            ("[apart-",),
        ),
        Drift(
            no_table_at_the_inner_door,
            ("tests/wire/test_callers.py::test_who_is_not_is_refused_alike_and_reaches_nobody",),
            ("[",),
        ),
    )
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--drift", choices=list(DRIFTS), help="the mistake that is planted")


def pytest_configure(config: pytest.Config) -> None:
    name = config.getoption("--drift")
    if name:
        # a drawn traceback for each of fifty buyers takes a minute
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
        DRIFTS[name].plant()
