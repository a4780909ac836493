"""The command `markethall ledger verify`: its output and exit codes."""

import json
from pathlib import Path

import asyncpg
import pytest

from markethall.shared.persistence.postgres import Postgres
from tests.conftest import plain
from tests.payments.conftest import PaymentsApp, build_payments_app
from tests.test_cli import markethall


@pytest.fixture
def payments_app(postgres: Postgres) -> PaymentsApp:
    return build_payments_app("sql", postgres)


@pytest.fixture
def database(database_url: str, tmp_path: Path) -> dict[str, str]:
    return {"database_url": database_url, "data_dir": str(tmp_path)}


async def change(database_url: str, statement: str) -> None:
    connection = await asyncpg.connect(plain(database_url))
    await connection.execute("SET session_replication_role = replica")
    await connection.execute(statement)
    await connection.close()


async def test_intact_ledger_is_exit_code_zero(
    payments_app: PaymentsApp, database: dict[str, str]
) -> None:
    await payments_app.refund(await payments_app.paid(), 500)

    result = markethall("ledger", "verify", "--rebuild", **database)

    assert result.stdout == (
        "2 postings checked: sums, hash chains, amounts of payments, operations.\n"
        "The ledger is intact.\n"
    ), result.stderr
    assert result.returncode == 0


async def test_changed_posting_is_named_and_exit_code_one(
    payments_app: PaymentsApp, database: dict[str, str], database_url: str
) -> None:
    payment = await payments_app.paid()
    await change(database_url, "UPDATE payments.entry SET amount = amount * 2")

    result = markethall("ledger", "verify", **database)

    assert result.returncode == 1
    assert "2 findings, the first of each chain first:\n  hash_differs chain " in result.stdout
    assert f"payment_differs: payment {payment.payment_id}\n" in result.stdout


async def test_only_the_rebuilt_ledger_shows_a_changed_operation(
    payments_app: PaymentsApp, database: dict[str, str], database_url: str
) -> None:
    await payments_app.refund(await payments_app.paid(), 500)
    await change(database_url, "UPDATE payments.operation SET amount = 7 WHERE kind = 'refund'")

    without = markethall("ledger", "verify", "--json", **database)
    rebuilt = markethall("ledger", "verify", "--rebuild", "--json", **database)

    assert (without.returncode, json.loads(without.stdout)["intact"]) == (0, True)
    (finding,) = json.loads(rebuilt.stdout)["findings"]
    assert (rebuilt.returncode, finding["problem"]) == (1, "differs_from_operation")


def test_process_without_payments_refuses(database: dict[str, str]) -> None:
    result = markethall("ledger", "verify", **database, contexts="inventory")

    assert result.returncode == 2
    assert "payments, which is not served" in result.stderr
