"""Test the topology command and the one-line errors of invalid topologies."""

import json
import os
import subprocess
import sys
from importlib import import_module

import pytest

from markethall.contexts import context_names, topology
from markethall.operations.topology_report import (
    context_locations,
    describe_routes,
    invalid_remote_urls,
)
from markethall.settings import read_settings

REDIS = "redis://localhost:6379/0"
REMOTE_URLS = {name: f"http://{name}.example:8000" for name in ("users", "inventory", "payments")}


def markethall(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    given = {f"MARKETHALL_{name.upper()}": value for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "markethall", *arguments],
        env={**os.environ, "PYTHONPATH": "src", **given},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


# Tables


def test_topology_names_every_context() -> None:
    for table in (
        topology().allowed_calls,
        topology().dependencies,
        topology().jwks_sources,
        topology().paths_by_context,
        topology().subscriptions,
    ):
        assert set(table) == set(context_names())


def test_every_subscription_names_an_event_of_its_publisher() -> None:
    for subscriptions in topology().subscriptions.values():
        for subscription in subscriptions:
            contract = import_module(f"markethall.{subscription.publisher}.contract")
            events = [e for e in vars(contract).values() if getattr(e, "type", "") != ""]
            assert subscription.event_type in {event.type for event in events}


def test_only_orders_calls_contexts_and_all_use_users_jwks() -> None:
    assert [context for context in context_names() if topology().dependencies[context]] == [
        "orders"
    ]
    assert {reader for reader in context_names() if "users" in topology().jwks_sources[reader]} == {
        "inventory",
        "orders",
        "payments",
    }


# Report


def test_topology_report_hides_passwords() -> None:
    result = markethall(
        "topology",
        contexts="orders,users",
        context_urls=json.dumps(
            {"inventory": "http://inventory:8000", "payments": "http://payments:8000"}
        ),
        database_url="postgresql://market:hunter2@db:5433/market",
        redis_url=REDIS,
    )

    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "users     here    Postgres db:5433/market",
        "inventory remote  http://inventory:8000",
        "orders    here    Postgres db:5433/market",
        "payments  remote  http://payments:8000",
        "orders -> users: calls in process",
        "orders -> inventory: calls over HTTP",
        "orders -> payments: calls over HTTP",
        "orders -> orders: events directly",
        "payments -> orders: events by Redis Streams",
        "users -> orders: events directly",
        "users -> payments: events by Redis Streams",
    ]


def test_relocation_uses_both_transports() -> None:
    settings = read_settings(event_transport="dual", redis_url=REDIS)

    events = {
        (route.source, route.transport)
        for route in describe_routes(settings)
        if route.kind == "events"
    }

    assert events == {
        ("orders", "directly and by Redis Streams"),
        ("payments", "directly and by Redis Streams"),
        ("users", "directly and by Redis Streams"),
    }


def test_context_without_dependencies_needs_no_urls() -> None:
    (users, *_) = context_locations(read_settings(contexts=["inventory"]))

    assert (users.is_local, users.location) == (False, "not known here")


# Errors

INVALID_TOPOLOGIES = {
    "missing": (
        {"contexts": "orders", "redis_url": REDIS},
        "MARKETHALL_CONTEXT_URLS: orders needs inventory, payments, users: serve or name them",
    ),
    "served and remote": (
        {"context_urls": '{"users": "http://localhost:9"}'},
        "MARKETHALL_CONTEXT_URLS: users is served by this process and cannot be remote too",
    ),
    "itself": (
        {"contexts": "inventory", "context_urls": '{"users": "http://localhost:8123"}'},
        "MARKETHALL_CONTEXT_URLS: users: http://localhost:8123 is this process itself",
    ),
    "unknown by name": (
        {"contexts": "inventory", "context_urls": '{"users": "http://unknown.invalid:8000"}'},
        "MARKETHALL_CONTEXT_URLS: users: no such host: unknown.invalid",
    ),
    "no address": (
        {"contexts": "inventory", "context_urls": '{"users": "users:8000"}'},
        "MARKETHALL_CONTEXT_URLS: users: must be an http or https address",
    ),
    "events to nowhere": (
        {"contexts": "users"},
        (
            "MARKETHALL_REDIS_URL: is required: users or orders is served elsewhere\n"
            "MARKETHALL_REDIS_URL: is required: users or payments is served elsewhere"
        ),
    ),
    "both without redis": (
        {"event_transport": "dual"},
        "MARKETHALL_EVENT_TRANSPORT: dual needs MARKETHALL_REDIS_URL",
    ),
}


@pytest.mark.parametrize("case", INVALID_TOPOLOGIES)
def test_each_problem_of_a_topology_is_one_line_and_exit_code_two(case: str) -> None:
    settings, lines = INVALID_TOPOLOGIES[case]

    result = markethall("serve", "--port", "8123", storage="memory", **settings)

    assert result.returncode == 2
    assert result.stderr.splitlines() == [f"error: {line}" for line in lines.splitlines()]


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "localhost"])  # noqa: S104 - compared only, not bound
def test_own_host_on_other_port_is_remote(host: str) -> None:
    settings = read_settings(
        contexts=["inventory"], context_urls={"users": "http://127.0.0.1:8000"}
    )

    assert invalid_remote_urls(settings, host, 8001) == []
    assert len(invalid_remote_urls(settings, host, 8000)) == 1
