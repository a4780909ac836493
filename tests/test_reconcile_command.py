"""The command `markethall payments reconcile`: its output, exit codes and error lines."""

import json
import re
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from markethall.payments.contract.api import PaymentView
from markethall.shared.persistence.postgres import Postgres
from tests.conftest import plain
from tests.payments.conftest import PaymentsApp, build_payments_app
from tests.test_cli import markethall

DAY = ("--from", "2026-11-21")
MANUAL_METHODS = json.dumps(
    [
        {
            "code": "bank_transfer",
            "name": "Bank transfer",
            "instructions": "Transfer it.",
            "deadline_days": 7,
        }
    ]
)
HEADER = "kind,amount,currency,occurred_at,reference\n"


@pytest.fixture
def payments_app(postgres: Postgres) -> PaymentsApp:
    return build_payments_app("sql", postgres)


@pytest.fixture
def database(database_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "database_url": database_url,
        "data_dir": str(tmp_path),
        "payment_providers": "sandbox,manual",
        "manual_payment_methods": MANUAL_METHODS,
    }


async def paid_by_transfer(payments_app: PaymentsApp) -> PaymentView:
    payment = await payments_app.confirm(await payments_app.open(), "manual:bank_transfer")
    return await payments_app.mark_paid(payment, 1999)


async def test_agreement_is_exit_code_zero(
    payments_app: PaymentsApp, database: dict[str, str]
) -> None:
    await payments_app.refund(await payments_app.paid(), 500)

    result = markethall("payments", "reconcile", "--provider", "sandbox", *DAY, **database)

    assert result.stdout == (
        "sandbox, 2026-11-21 (UTC)\n"
        "\n"
        "sums   ours  theirs  difference  fees\n"
        "EUR   14.99   14.99        0.00  0.00\n"
        "\n"
        "2 matched, 0 differences\n"
    ), result.stderr
    assert result.returncode == 0


async def test_differences_are_a_table_and_exit_code_one(
    payments_app: PaymentsApp, database: dict[str, str], database_url: str
) -> None:
    await payments_app.paid()
    await payments_app.paid()
    connection = await asyncpg.connect(plain(database_url))
    await connection.execute(
        "UPDATE payments.sandbox_charge SET amount = 1998, captured = 1998 WHERE operation_id ="
        " (SELECT min(operation_id::text)::uuid FROM payments.sandbox_charge)"
    )
    await connection.close()

    result = markethall("payments", "reconcile", "--provider", "sandbox", *DAY, **database)

    lines = result.stdout.splitlines()
    assert re.fullmatch(r"difference +ours +theirs +time \(UTC\) +reference", lines[2])
    cells = re.split(" {2,}", lines[3])
    assert cells[:3] == ["amount differs", "payment 19.99 EUR", "payment 19.98 EUR"]
    assert cells[3].startswith("2026-11-21 12:00:0")
    assert cells[4].startswith("ch_")
    assert lines[-1] == "1 matched, 1 difference (1 amount differs)"
    assert result.returncode == 1


async def test_json_has_every_difference_and_the_summary(
    payments_app: PaymentsApp, database: dict[str, str], tmp_path: Path
) -> None:
    await paid_by_transfer(payments_app)
    file = tmp_path / "statement.csv"
    rows = "".join(f"payment,1.50,EUR,2026-11-21T12:00Z,r{number}\n" for number in range(150))
    file.write_text(HEADER + rows)
    arguments = ("--provider", "manual", "--file", str(file))

    as_json = markethall("payments", "reconcile", *arguments, "--json", **database)
    as_text = markethall("payments", "reconcile", *arguments, **database)

    document = json.loads(as_json.stdout)
    assert len(document["differences"]) == 151
    assert document["summary"]["differences_by_reason"] == {
        "missing_here": 150,
        "missing_there": 1,
    }
    assert document["differences"][-1]["line"] in range(2, 152)
    assert "... and 51 more; --json prints all" in as_text.stdout
    assert (as_json.returncode, as_text.returncode) == (1, 1)


async def test_empty_day_is_valid_json(database: dict[str, str]) -> None:
    result = markethall("payments", "reconcile", "--provider", "sandbox", "--json", **database)

    document = json.loads(result.stdout)
    assert (document["differences"], document["summary"]["matched"]) == ([], 0)
    assert result.returncode == 0


async def test_control_characters_of_a_file_are_not_printed(
    database: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "statement.csv"
    file.write_text(HEADER + "payment,1.50,EUR,2026-11-21T12:00Z,\x1b[2Jhidden\n")

    result = markethall(
        "payments", "reconcile", "--provider", "manual", "--file", str(file), **database
    )

    assert "?[2Jhidden (line 2)" in result.stdout
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--provider", "paypal"), "error: --provider: paypal is not one of sandbox, manual"),
        (
            ("--provider", "manual"),
            "error: --provider: manual gives no report; compare with a file by --file",
        ),
        (("--provider", "sandbox", "--to", "2026-11-21"), "error: --to: needs --from"),
        (("--provider", "sandbox", *DAY, "--to", "2026-11-20"), "error: --to: is before --from"),
        (
            ("--provider", "sandbox", "--from", "0001-01-01"),
            "error: --from: days must be between 2000-01-01 and 2199-12-31",
        ),
    ],
)
def test_invalid_input_is_one_line_and_exit_code_two(
    arguments: tuple[str, ...], expected: str, database: dict[str, str]
) -> None:
    result = markethall("payments", "reconcile", *arguments, **database)

    assert (result.returncode, result.stderr.strip()) == (2, expected)


def test_invalid_lines_of_a_file_are_listed(database: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "statement.csv"
    file.write_text(HEADER + "payment,1.5.0,EUR,2026-11-21,a\npayment,1,EUR,yesterday,b\nx\n")

    result = markethall(
        "payments", "reconcile", "--provider", "manual", "--file", str(file), **database
    )

    assert result.stderr.splitlines() == [
        "error: line 2, amount: must be a decimal number such as 19.99",
        "error: line 3, occurred_at: must be a date or time such as 2026-11-29T18:30:00Z",
        "error: line 4: has 1 cells, but the first line has 5",
    ]
    assert (result.returncode, result.stdout) == (2, "")


async def test_days_include_the_last(payments_app: PaymentsApp, database: dict[str, str]) -> None:
    await payments_app.paid()
    payments_app.clock.now += timedelta(days=2)
    await payments_app.paid()

    result = markethall(
        "payments", "reconcile", "--provider", "sandbox", *DAY, "--to", "2026-11-23", **database
    )

    assert result.stdout.startswith("sandbox, 2026-11-21 to 2026-11-23 (UTC)\n")
    assert result.stdout.endswith("2 matched, 0 differences\n")
