"""A pytest plugin that plants a bug (a mutant), to test that the contract tests find it.

`pytest -p tests.rpc.mutants --mutant NAME` runs with the bug; test_mutants.py runs all mutants.
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
# the parameters of the contract tests that use Postgres; `remote` calls the service over HTTP
SQL: Final = ("[sql]", "[remote]")
BOTH_WAYS: Final = "tests/rpc/test_local_and_remote.py"


def request_field_dropped() -> None:
    remote = module("payments.remote").RemotePayments
    refund = remote.refund

    async def mutated(self: Any, ctx: Any, command: Any) -> Any:
        return await refund(self, ctx, command.model_copy(update={"amount": None}))

    remote.refund = mutated


def response_field_dropped() -> None:
    server = module("shared.rpc.server")
    json_response = server.json_response

    def without_email(dto: Any) -> Any:
        return json_response(dto.model_copy(update={"email": ""}) if hasattr(dto, "email") else dto)

    server.json_response = without_email


def row_field_dropped() -> None:
    store = module("inventory.reservations.sql.store")
    line = store._reservation_line
    store._reservation_line = lambda row: line({**row, "name": row["sku"]})


def error_details_dropped() -> None:
    module("shared.rpc.client")._problem_details = lambda _: {}


def error_class_lost() -> None:
    """Raise an error with a code that the caller does not know."""
    # built first, because the documentation of the routes has an example for each known code
    assert module("payments.remote").routes.router
    module("payments.contract").RefundExceedsCaptured.code = "payments.unheard_of"


def live_row_returned() -> None:
    table = module("shared.persistence.memory").Table
    init = table.__init__
    table.__init__ = lambda self, *_, **rows: init(self, lambda row: row, **rows)


def response_mutable() -> None:
    refund = module("payments.contract.internal").RefundView
    refund.model_config["frozen"] = False
    refund.model_rebuild(force=True)


def row_not_locked() -> None:
    statements = module("payments.sql.statements")
    statements.GET_PAYMENT_FOR_UPDATE = statements.GET_PAYMENT


def check_and_update_separated() -> None:
    """Reserve without checking the stock in the same statement."""
    statements = module("inventory.reservations.sql.statements")
    for statement in (statements.RESERVE_LINE, statements.RESERVE_SINGLE_STATEMENT):
        sql = statement.sql
        for comparison in ("stock.reserved >= ", "ELSE 0 END >= "):
            sql = sql.replace(comparison, f"{comparison}-1000000 + ")
        assert "-1000000" in sql
        statement._sql = sql


def no_local_guard() -> None:
    _remove_guard(of_remote=False)


def no_remote_guard() -> None:
    _remove_guard(of_remote=True)


def _remove_guard(*, of_remote: bool) -> None:
    for context, name in (
        ("users", "GuardedUsers"),
        ("inventory", "GuardedInventory"),
        ("payments", "GuardedPayments"),
    ):
        _replace_guard(getattr(module(f"{context}.remote"), name), of_remote=of_remote)


def _replace_guard(guarded: Any, *, of_remote: bool) -> None:
    init = guarded.__init__

    def mutated(self: Any, service: Any, guard: Any) -> None:
        is_remote = type(service).__name__.startswith("Remote")
        init(self, service, _NoGuard() if is_remote is of_remote else guard)

    guarded.__init__ = mutated


class _NoGuard:
    async def invoke(self, ctx: Any, method: str, call: Any) -> Any:
        return await call(ctx)


def no_allowed_calls_check() -> None:
    policy = module("shared.rpc.server").ServiceRoutePolicy

    async def mutated(self: Any, request: Request) -> Any:
        self._get_identity(request)
        return request.scope["state"]["get_call_context"]()

    policy.__call__ = mutated


def module(name: str) -> Any:
    """Import the module for a bug when it is planted, so that a run imports only what it tests."""
    return import_module(f"markethall.{name}")


@dataclass(frozen=True)
class Mutant:
    """A bug. A test in `tests` must fail if and only if its id contains an item of `caught_by`."""

    apply: Callable[[], None]
    tests: tuple[str, ...]
    caught_by: tuple[str, ...]


MUTANTS: Final[Mapping[str, Mutant]] = {
    mutant.apply.__name__: mutant
    for mutant in (
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
    parser.addoption("--mutant", choices=list(MUTANTS), help="the bug to plant")


def pytest_configure(config: pytest.Config) -> None:
    name = config.getoption("--mutant")
    if name:
        # no logs below critical, because the format of fifty tracebacks takes a minute
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
        MUTANTS[name].apply()
