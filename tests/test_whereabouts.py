"""Who runs where: said in a command, refused in one line when it cannot be right."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

from markethall.container import LISTENERS
from markethall.settings import read_settings
from markethall.topology import CALLERS, HEARS, KEYS, NEEDS, OWNED, Context
from markethall.whereabouts import places, ways, wrong_addresses

REDIS = "redis://localhost:6379/0"
LEAVES = {name: f"http://{name}.example:8000" for name in ("users", "inventory", "payments")}


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


# the tables


def test_the_tables_name_every_context() -> None:
    for table in (CALLERS, NEEDS, KEYS, OWNED, HEARS):
        assert set(table) == set(Context)


def test_who_hears_of_whom_is_what_the_listeners_say() -> None:
    heard: Mapping[Context, set[Context]] = {context: set() for context in Context}
    for event, listeners in LISTENERS.items():
        for listener, _ in listeners:
            heard[listener].add(Context(event.type.partition(".")[0]))

    assert heard == HEARS


def test_only_orders_calls_and_everybody_reads_the_keys_of_users() -> None:
    assert [context for context in Context if NEEDS[context]] == [Context.ORDERS]
    assert {reader for reader in Context if Context.USERS in KEYS[reader]} == {
        Context.INVENTORY,
        Context.ORDERS,
        Context.PAYMENTS,
    }


# what is said


def test_topology_says_who_runs_where_and_repeats_no_password() -> None:
    said = markethall(
        "topology",
        serve="orders,users",
        remotes=json.dumps({"inventory": "http://stall:8000", "payments": "http://till:8000"}),
        database_url="postgresql://market:hunter2@db:5433/hall",
        redis_url=REDIS,
    )

    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines() == [
        "users     here    Postgres db:5433/hall",
        "inventory remote  http://stall:8000",
        "orders    here    Postgres db:5433/hall",
        "payments  remote  http://till:8000",
        "orders -> users: calls in process",
        "orders -> inventory: calls over HTTP",
        "orders -> payments: calls over HTTP",
        "orders -> orders: events directly",
        "payments -> orders: events by Redis Streams",
    ]


def test_during_a_move_events_go_both_ways() -> None:
    settings = read_settings(events="both", redis_url=REDIS)

    events = {(way.source, way.by) for way in ways(settings) if way.what == "events"}

    assert events == {
        ("orders", "directly and by Redis Streams"),
        ("payments", "directly and by Redis Streams"),
    }


def test_a_leaf_may_be_served_without_knowing_where_the_others_are() -> None:
    (users, *_) = places(read_settings(serve=[Context.INVENTORY]))

    assert (users.here, users.at) == (False, "not known here")


# what is refused

REFUSED = {
    "missing": (
        {"serve": "orders", "redis_url": REDIS},
        "MARKETHALL_REMOTES: orders needs inventory, payments, users: serve or name them",
    ),
    "served and remote": (
        {"remotes": '{"users": "http://localhost:9"}'},
        "MARKETHALL_REMOTES: users is served by this process and cannot be remote too",
    ),
    "itself": (
        {"serve": "inventory", "remotes": '{"users": "http://localhost:8123"}'},
        "MARKETHALL_REMOTES: users: http://localhost:8123 is this process itself",
    ),
    "unknown by name": (
        {"serve": "inventory", "remotes": '{"users": "http://nobody.invalid:8000"}'},
        "MARKETHALL_REMOTES: users: no such host: nobody.invalid",
    ),
    "no address": (
        {"serve": "inventory", "remotes": '{"users": "users:8000"}'},
        "MARKETHALL_REMOTES: users: must be an http or https address",
    ),
    "events to nowhere": (
        {"serve": "payments"},
        "MARKETHALL_REDIS_URL: is required: payments or orders is served elsewhere",
    ),
    "both without redis": (
        {"events": "both"},
        "MARKETHALL_EVENTS: both needs MARKETHALL_REDIS_URL",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_right_is_one_line_and_exit_code_2(what: str) -> None:
    settings, line = REFUSED[what]

    said = markethall("serve", "--port", "8123", storage="memory", **settings)

    assert said.returncode == 2
    assert said.stderr.splitlines() == [f"error: {line}"]


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "localhost"])  # noqa: S104 - asked for, not listened on
def test_an_address_of_ours_on_another_port_is_somebody_else(host: str) -> None:
    settings = read_settings(
        serve=[Context.INVENTORY], remotes={Context.USERS: "http://127.0.0.1:8000"}
    )

    assert wrong_addresses(settings, host, 8001) == []
    assert len(wrong_addresses(settings, host, 8000)) == 1
