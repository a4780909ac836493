"""How one call comes to be two, local and remote: a plugin of pytest that plants a mistake.

`pytest -p tests.rpc.mutants --mutant NAME` runs with the mistake. See test_drifts.py.
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
VALUES: Final = "tests/rpc/test_values.py"
# in the suites `remote` is the wire to the service on Postgres
SQL: Final = ("[sql]", "[remote]")
BOTH_WAYS: Final = "tests/rpc/test_local_and_remote.py"


def request_field_dropped() -> None:
    remote = module("payments.remote").RemotePayments
    refund = remote.refund

    async def drifted(self: Any, call: Any, command: Any) -> Any:
        return await refund(self, call, command.model_copy(update={"amount": None}))

    remote.refund = drifted


def response_field_dropped() -> None:
    remote = module("users.remote")
    json_response = remote.json_response
    remote.json_response = lambda dto: json_response(dto.model_copy(update={"email": ""}))


def row_field_dropped() -> None:
    store = module("inventory.reservations.sql.store")
    line = store._reservation_line
    store._reservation_line = lambda row: line({**row, "name": row["sku"]})


def error_details_dropped() -> None:
    module("shared.rpc.client")._problem_details = lambda _: {}


def error_class_lost() -> None:
    """As when a code is not known at the calling end."""
    module("payments.contract").RefundExceedsCaptured.code = "payments.unheard_of"


def live_row_returned() -> None:
    table = module("shared.persistence.memory").Table
    begin = table.__init__
    table.__init__ = lambda self, *_, **rows: begin(self, lambda row: row, **rows)


def response_mutable() -> None:
    refund = module("payments.contract").RefundView
    refund.model_config["frozen"] = False
    refund.model_rebuild(force=True)


def row_not_locked() -> None:
    statements = module("payments.sql.statements")
    statements.GET_PAYMENT_FOR_UPDATE = statements.GET_PAYMENT


def check_and_update_separated() -> None:
    """As if what is there had been looked up before, and is taken whatever it is by now."""
    statements = module("inventory.reservations.sql.statements")
    for take in (statements.RESERVE_LINE, statements.RESERVE_SINGLE_STATEMENT):
        take._compile()
        for enough in ("stock.reserved >= ", "ELSE 0 END >= "):
            take._sql = take._sql.replace(enough, f"{enough}-1000000 + ")
        assert "-1000000" in take._sql


def no_local_guard() -> None:
    _without_guard(here=True)


def no_remote_guard() -> None:
    _without_guard(here=False)


def _without_guard(*, here: bool) -> None:
    """Before the container is read, which keeps what it found."""
    guard = module("shared.rpc.client_interceptor")
    guarded = guard.with_call_guard

    def drifted(service: Any, its_guard: Any) -> Any:
        is_here = not type(service).__name__.startswith("Remote")
        return service if is_here is here else guarded(service, its_guard)

    guard.with_call_guard = drifted


def no_allowed_calls_check() -> None:
    policy = module("shared.rpc.server").ServiceRoutePolicy

    async def drifted(self: Any, request: Request) -> Any:
        self._get_identity(request)
        return request.scope["state"]["call_context"]

    policy.__call__ = drifted


def module(name: str) -> Any:
    """Read when the mistake is planted, and not before."""
    return import_module(f"markethall.{name}")


@dataclass(frozen=True)
class Mutant:
    """`tests` are run, in all their variants; those with one of `caught_by` in it must fail."""

    apply: Callable[[], None]
    tests: tuple[str, ...]
    caught_by: tuple[str, ...]


MUTANTS: Final[Mapping[str, Mutant]] = {
    drift.apply.__name__: drift
    for drift in (
        Mutant(
            request_field_dropped,
            (f"{PAYMENTS}::test_partial_refund",),
            ("[remote]",),
        ),
        Mutant(
            response_field_dropped,
            (f"{USERS}::test_other_contexts_get_active_customer",),
            ("[remote]",),
        ),
        Mutant(
            row_field_dropped,
            (f"{INVENTORY}::test_reservation_keeps_price_and_name_at_creation",),
            SQL,
        ),
        Mutant(
            error_details_dropped,
            (
                f"{INVENTORY}::test_out_of_stock_names_all_lines_and_reserves_nothing",
                f"{PAYMENTS}::test_an_order_has_one_payment",
                f"{USERS}::test_unknown_user_is_not_found",
            ),
            ("[remote]",),
        ),
        Mutant(
            error_class_lost,
            (f"{PAYMENTS}::test_full_refund_leaves_nothing_refundable",),
            ("[remote]",),
        ),
        Mutant(
            live_row_returned,
            (f"{INVENTORY}::test_late_commit_uses_stock_of_other_expired_reservations",),
            ("[memory]",),
        ),
        Mutant(
            response_mutable,
            (f"{VALUES}::test_dtos_are_deeply_immutable",),
            ("[payments-refund]",),
        ),
        Mutant(
            row_not_locked,
            ("tests/payments/test_races.py::test_concurrent_refunds_never_exceed_captured_amount",),
            SQL,
        ),
        Mutant(
            check_and_update_separated,
            (f"{INVENTORY}::test_fifty_concurrent_buyers_get_seven_units",),
            SQL,
        ),
        Mutant(
            no_local_guard,
            (f"{BOTH_WAYS}::test_call_inside_transaction_fails_both_ways",),
            ("[together-",),
        ),
        Mutant(
            no_remote_guard,
            (f"{BOTH_WAYS}::test_call_inside_transaction_fails_both_ways",),
            ("[apart-",),
        ),
        Mutant(
            no_allowed_calls_check,
            ("tests/rpc/test_allowed_calls.py::test_disallowed_caller_is_rejected_without_call",),
            ("[",),
        ),
    )
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mutant", choices=list(MUTANTS), help="the mistake that is planted")


def pytest_configure(config: pytest.Config) -> None:
    name = config.getoption("--mutant")
    if name:
        # a drawn traceback for each of fifty buyers takes a minute
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
        MUTANTS[name].apply()
