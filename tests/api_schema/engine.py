"""Runs Schemathesis against the application in this process, and collects the results."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

import schemathesis
from schemathesis import Case, HookContext, Response, SerializationContext
from schemathesis.core.failures import Failure
from schemathesis.engine import Status, events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder
from schemathesis.hooks import unregister
from schemathesis.python.asgi import ASGIApp, get_client
from schemathesis.specs.openapi.schemas import OpenApiSchema

from markethall.app import Gateway, create_app
from markethall.orders.contract.status import MAX_WAIT_SECONDS
from markethall.settings import read_settings
from tests.api_schema.document import document_for_generation
from tests.api_schema.expected_errors import BUSINESS_STATUSES, reason_of
from tests.api_schema.headers import header_differences
from tests.api_schema.shop import ADMIN, SeededShop, ShopSeeder

# an ordinary run always sends the same few requests; a full run sends many
FULL: Final = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
SEED: Final = 20261130
MAX_CURSOR_LENGTH: Final = 4000
MAX_SHOWN_CHARACTERS: Final = 1000


@dataclass
class SchemaReport:
    """The results of a run as one kind of caller."""

    cases: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    operations: set[str] = field(default_factory=set)
    expected_errors: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [
            f"{len(self.operations)} operations, {self.cases.total()} requests",
            f"failures: {len(self.failures)} {', '.join(self.failures)}",
            "phases: " + ", ".join(f"{name}: {n}" for name, n in sorted(self.cases.items())),
            "statuses: " + ", ".join(f"{code}: {n}" for code, n in sorted(self.statuses.items())),
            *(f"refused {n} times: {why}" for why, n in self.expected_errors.most_common()),
        ]
        return "\n".join(lines)


@schemathesis.serializer("application/x-ndjson")
def serialize_lines(_: SerializationContext, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@contextmanager
def seeded_app() -> Iterator[tuple[Gateway, SeededShop]]:
    """Yield an application with memory storage, and its shop.

    The application stays open at the end of the block: Schemathesis keeps its lifespan between
    requests, and the pytest plugin of Schemathesis ends it after the test.
    """
    app = create_app(
        read_settings(
            storage="memory",
            token_ttl=36_000,
            # a stream of order events would otherwise last as long as this test
            order_stream_max_seconds=0.01,
            **ADMIN,
        )
    )
    with get_client(cast("ASGIApp", app)) as http:
        yield app, ShopSeeder(http).seed()


def run_schemathesis(
    app: Gateway, shop: SeededShop, caller: str, document: Mapping[str, Any]
) -> SchemaReport:
    report = SchemaReport()
    schema = _load_schema(app, shop, caller, document)

    @schema.hook
    def filter_failure(
        _: HookContext, failure: Failure, case: Case[Any], response: Response
    ) -> bool:
        reason = reason_of(failure, case, response)
        report.expected_errors.update([reason] if reason else [])
        return reason is None

    with _independent_requests():
        for event in from_schema(schema).execute():
            _collect(report, event, document)
    return report


def _load_schema(
    app: Gateway, shop: SeededShop, caller: str, document: Mapping[str, Any]
) -> OpenApiSchema:
    prepared = document_for_generation(document, shop.ids, all_enum_values=FULL)
    config = schemathesis.Config.from_dict(_configuration(caller, shop.tokens.get(caller)))
    schema = schemathesis.openapi.from_dict(prepared, config=config)
    schema.app = app
    return schema


def _configuration(caller: str, token: str | None) -> dict[str, Any]:
    # The values of all edge cases. Callers without access need none in an ordinary run, because the
    # application rejects their requests before it reads the content.
    has_edge_cases = FULL or caller == "admin"
    examples = 100 if FULL else 3
    return {
        "seed": SEED,
        "continue-on-failure": True,
        "suppress-health-check": ["all"],
        "headers": {"Authorization": f"Bearer {token}"} if token else {},
        "auth": {"auto-signup": False},
        # Two runs must send the same requests. The cache would reuse data of an earlier run, and
        # constants of the source code are extracted in varying order.
        "cache": {"enabled": False},
        "analysis": {"constants": {"enabled": False}},
        "generation": {"deterministic": not FULL, "max-examples": examples, "no-shrink": True},
        "phases": {
            "coverage": {"enabled": has_edge_cases, "generation": {"mode": "all"}},
            # scenarios of several requests, which use ids from earlier responses
            "stateful": {"generation": {"max-examples": 2 * examples}},
        },
        "checks": {
            "positive_data_acceptance": {
                "expected-statuses": ["2xx", "3xx", *BUSINESS_STATUSES],
            },
            "negative_data_rejection": {
                # 412: an If-Match that is not a list of ETags matches no version (RFC 9110)
                "expected-statuses": [400, 405, 412, 413, 415, 422, 428, *BUSINESS_STATUSES],
            },
            # 428: If-Match is missing (RFC 6585)
            "missing_required_header": {"expected-statuses": [400, 401, 403, 428]},
        },
    }


@contextmanager
def _independent_requests() -> Iterator[None]:
    """Change generated requests that would depend on other requests, never succeed, or take long.

    - A repeated idempotency key would get the stored response, so each request gets its own key.
    - Cursors are signed, so a generated cursor is never valid; it is removed. tests/test_cursors.py
      tests cursors.
    - A request could wait for a change of an order, so `wait` becomes 0.
      tests/orders/test_status_waits.py tests these waits.
    """
    sent: set[str] = set()

    def before_call(_: HookContext, case: Case[Any], __: dict[str, Any]) -> None:
        key = case.headers.get("Idempotency-Key")
        # `"x"` and `x` are the same key
        if key is not None and key.strip('"') in sent:
            key = case.headers["Idempotency-Key"] = f"key-{len(sent)}"
        if key is not None:
            sent.add(key.strip('"'))
        cursor = case.query.get("cursor")
        if isinstance(cursor, str) and len(cursor) <= MAX_CURSOR_LENGTH:
            del case.query["cursor"]
        if case.query.get("wait") in range(1, MAX_WAIT_SECONDS + 1):
            case.query["wait"] = 0

    schemathesis.hook("before_call")(before_call)
    try:
        yield
    finally:
        unregister(before_call)


def _collect(report: SchemaReport, event: events.EngineEvent, document: Mapping[str, Any]) -> None:
    match event:
        case events.ScenarioFinished():
            report.cases[event.phase.value] += len(event.recorder.interactions)
            _collect_responses(report, event.recorder, document)
            _collect_failures(report, event.recorder)
        case events.NonFatalError():
            report.failures[event.label] = str(event.info)
        case events.FatalError():
            raise event.exception


def _collect_responses(
    report: SchemaReport, recorder: ScenarioRecorder, document: Mapping[str, Any]
) -> None:
    for case_id, interaction in recorder.interactions.items():
        response = interaction.response
        if response is not None:
            label = recorder.cases[case_id].value.operation.label
            report.operations.add(label)
            report.statuses[response.status_code] += 1
            for line in header_differences(document, label, response.status_code, response.headers):
                report.failures[line] = ""


def _collect_failures(report: SchemaReport, recorder: ScenarioRecorder) -> None:
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is not None and check.status is Status.FAILURE:
                failure = check.failure_info.failure
                response = recorder.interactions[case_id].response
                report.failures.setdefault(
                    f"{failure.operation}: {check.name}: {failure.title}",
                    f"{failure.message}\n{check.failure_info.code_sample[:MAX_SHOWN_CHARACTERS]}\n"
                    f"{response.content[:MAX_SHOWN_CHARACTERS].decode() if response else ''}",
                )
