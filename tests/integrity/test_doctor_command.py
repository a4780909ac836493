"""Test `markethall doctor`: its exit codes, its output and its repairs."""

import json
from pathlib import Path

import asyncpg
import pytest

from tests.conftest import plain
from tests.integrity_checks import tamper
from tests.test_cli import markethall

OVERDUE = (
    "UPDATE inventory.reservation SET expires_at = now() - interval '1 hour' WHERE status = 'held'",
    # `tamper` disables triggers, so the test itself must update the copy of this column in the
    # lines
    (
        "UPDATE inventory.reservation_line AS line SET expires_at = reservation.expires_at"
        " FROM inventory.reservation"
        " WHERE reservation.reservation_id = line.reservation_id AND line.status = 'held'"
    ),
)
FAR_FUTURE = (
    (
        "UPDATE orders.inbox"
        " SET state = 'waiting', done_at = NULL, due_at = now() + interval '1 day'"
        " WHERE handler = 'orders.on_order_paid'"
    ),
)
DEAD = (
    (
        "UPDATE orders.inbox SET state = 'dead', error = 'it broke'"
        " WHERE handler = 'orders.on_payment_failed'"
    ),
)
NEGATIVE_SUM = ("UPDATE inventory.stock SET on_hand = on_hand + 1",)


@pytest.fixture
def database(own_database_url: str, tmp_path: Path) -> dict[str, str]:
    return {"database_url": own_database_url, "data_dir": str(tmp_path)}


def test_sound_shop_has_exit_code_0(database: dict[str, str]) -> None:
    done = markethall("doctor", "--grace", "0", **database)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "O1.on_hand_equals_movements" in done.stdout
    assert done.stdout.rstrip().endswith("No violation.")


async def test_violation_has_exit_code_1_and_names_the_row(database: dict[str, str]) -> None:
    await tamper(database["database_url"], *NEGATIVE_SUM)

    done = markethall("doctor", **database)

    assert done.returncode == 1, done.stdout + done.stderr
    assert "stock product_id=" in done.stdout
    assert "the sum of its movements is" in done.stdout


async def test_report_as_json_lists_the_checks_of_one_context(database: dict[str, str]) -> None:
    await tamper(database["database_url"], *NEGATIVE_SUM)

    inventory = markethall("doctor", "--json", "--context", "inventory", **database)
    orders = markethall("doctor", "--json", "--context", "orders", **database)

    report = json.loads(inventory.stdout)
    assert inventory.returncode == 1
    assert report["status"] == "violated"
    assert {check["context"] for check in report["checks"]} == {"inventory"}
    (wrong,) = [check for check in report["checks"] if check["violations"]]
    assert wrong["check"] == "O1.on_hand_equals_movements"
    assert orders.returncode == 0, orders.stdout + orders.stderr


def test_missing_database_has_exit_code_2(tmp_path: Path) -> None:
    url = "postgresql+asyncpg://unknown:unknown@127.0.0.1:9/none"

    done = markethall("doctor", database_url=url, data_dir=str(tmp_path), database_timeout="1")

    assert done.returncode == 2, done.stdout + done.stderr
    assert "postgres is not available" in done.stdout
    assert "not everything was checked" in done.stdout


def test_memory_storage_has_exit_code_2(tmp_path: Path) -> None:
    done = markethall("doctor", storage="memory", data_dir=str(tmp_path))

    assert done.returncode == 2
    assert "MARKETHALL_STORAGE" in done.stderr


def test_unknown_context_has_exit_code_2(tmp_path: Path) -> None:
    done = markethall("doctor", "--context", "shops", data_dir=str(tmp_path))

    assert done.returncode == 2
    assert "shops: is not one of the contexts" in done.stderr


@pytest.mark.parametrize(
    ("statements", "description", "query"),
    [
        (
            OVERDUE,
            "Expire overdue reservations (inventory)",
            "SELECT count(*) FROM inventory.reservation WHERE status = 'held'",
        ),
        (
            FAR_FUTURE,
            "Make stuck deliveries due (orders)",
            # processed deliveries keep the end of their lease as `due_at`
            "SELECT count(*) FROM orders.inbox WHERE state = 'waiting' AND due_at > now()",
        ),
        (
            DEAD,
            "Try dead letters again (orders)",
            "SELECT count(*) FROM orders.inbox WHERE state = 'dead'",
        ),
    ],
)
async def test_repair_is_listed_before_and_after_and_can_run_twice(
    database: dict[str, str], statements: tuple[str, ...], description: str, query: str
) -> None:
    await tamper(database["database_url"], *statements)
    found = markethall("doctor", **database)

    repaired = markethall("doctor", "--repair", **database)
    again = markethall("doctor", "--repair", **database)

    assert found.returncode == 1, found.stdout + found.stderr
    assert description not in found.stderr
    assert description.partition(" (")[0] in repaired.stderr
    assert f"{description}:" in repaired.stderr
    assert " 0 after" in repaired.stderr
    assert description not in again.stderr
    assert await count(database["database_url"], query) == 0


async def test_repair_changes_nothing_else(database: dict[str, str]) -> None:
    await tamper(database["database_url"], *NEGATIVE_SUM)

    done = markethall("doctor", "--repair", **database)

    assert done.returncode == 1
    assert "There is nothing that --repair can repair." in done.stderr


async def test_repair_that_fails_is_reported(database: dict[str, str]) -> None:
    """The repair refuses to expire a reservation whose lines have another expiry."""
    await tamper(database["database_url"], OVERDUE[0])

    done = markethall("doctor", "--repair", **database)

    assert done.returncode == 1
    assert "the repair failed: " in done.stderr
    assert "Traceback" not in done.stdout


async def count(database_url: str, query: str) -> int:
    connection = await asyncpg.connect(plain(database_url))
    try:
        return int(await connection.fetchval(query))
    finally:
        await connection.close()
