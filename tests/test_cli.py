"""Test the commands: their effects, exit codes and error lines."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import asyncpg
import pytest

from markethall.cli.database_wait import wait_for_database
from markethall.local.demo.generated_catalogue import generate_products
from markethall.local.postgres import EmbeddedPostgres
from markethall.orders.contract import OrderExpired
from markethall.shared.kernel.call_context import system_context
from markethall.shared.kernel.clock import utc_now
from markethall.shared.kernel.ids import new_id
from markethall.shared.messaging.events import wrap_event
from markethall.shared.persistence.postgres import Postgres
from markethall.shared.security.passwords import Passwords
from tests.conftest import plain
from tests.inventory.conftest import ANYONE, build_inventory_app

# the cheapest password hashes, and a database timeout of 30 s, because the machine may be busy
DEFAULTS = {"MARKETHALL_BCRYPT_COST": "4", "MARKETHALL_DATABASE_TIMEOUT": "30"}


def markethall(
    *arguments: str, given: str = "", **environment: str
) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if "MARKETHALL" not in name}
    settings = {f"MARKETHALL_{name.upper()}": value for name, value in environment.items()}
    return subprocess.run(
        [sys.executable, "-m", "markethall", *arguments],
        env={**clean, **DEFAULTS, **settings},
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"contexts": "users,unknown"}, "MARKETHALL_CONTEXTS[1]: "),
        (
            {"contexts": "orders"},
            "MARKETHALL_CONTEXT_URLS: orders needs inventory, payments, users",
        ),
        ({"context_urls": '{"users": "ftp://x"}'}, "MARKETHALL_CONTEXT_URLS: "),
        ({"secret_key": "short"}, "MARKETHALL_SECRET_KEY: is too weak"),
        ({"environment": "production"}, "MARKETHALL_SECRET_KEY: is required in production"),
        ({"access_token_private_key": "no key"}, "MARKETHALL_ACCESS_TOKEN_PRIVATE_KEY: "),
        ({"admin_email": "a@example.com"}, "MARKETHALL_ADMIN_EMAIL: comes together"),
        (
            {"admin_email": "a@example.com", "admin_password": "password"},
            "MARKETHALL_ADMIN_PASSWORD: is too common",
        ),
        (
            {"database_url": "postgresql://u:p@h/d?schema=x"},
            "MARKETHALL_DATABASE_URL: has the parameter schema, which is not known",
        ),
        (
            {"admin_email": "admin@localhost", "admin_password": "a long and quiet sentence"},
            "MARKETHALL_ADMIN_EMAIL: The part after the @-sign is not valid",
        ),
        ({"database_pool_max": "2"}, "MARKETHALL_DATABASE_POOL_MAX: "),
        ({"trusted_proxies": "everywhere"}, "MARKETHALL_TRUSTED_PROXIES: "),
    ],
)
def test_invalid_settings_are_one_line_each_and_exit_code_two(
    environment: dict[str, str], expected: str, tmp_path: Path
) -> None:
    base = {"storage": "memory", "data_dir": str(tmp_path)}

    result = markethall("serve", "--port", "0", **{**base, **environment})

    assert result.returncode == 2
    lines = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert any(expected in line for line in lines), result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("create-staff", "admin@localhost", "--password-stdin"), "/email: "),
        (("create-staff", "a@example.com", "--password-stdin", "--role", "king"), "/role: "),
        (("create-staff", "a@example.com", "--password-stdin"), "at least 8 characters"),
        (("migrate", "--context", "shops"), "shops: is not one of the contexts users, "),
        (("relocate", "shops", "--to", "elsewhere"), "shops: is not one of the contexts users, "),
        (("events", "dead", "--context", "shops"), "shops"),
    ],
)
def test_invalid_input_is_one_line_and_exit_code_two(
    arguments: tuple[str, ...], expected: str, database_url: str, tmp_path: Path
) -> None:
    result = markethall(
        *arguments, given="short\n", database_url=database_url, data_dir=str(tmp_path)
    )

    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert expected in line


async def test_piped_password_loses_one_line_ending(database_url: str, tmp_path: Path) -> None:
    arguments = ("create-staff", "a@example.com", "--password-stdin")
    given = "another good sentence 1 \r\n"

    created = markethall(*arguments, given=given, database_url=database_url, data_dir=str(tmp_path))

    assert created.returncode == 0, created.stderr
    connection = await asyncpg.connect(plain(database_url))
    try:
        password_hash = await connection.fetchval('SELECT password_hash FROM users."user"')
    finally:
        await connection.close()
    passwords = Passwords(cost=4)
    assert await passwords.verify("another good sentence 1 ", password_hash)
    passwords.close()


def test_postgres_variables_of_the_shell_do_not_reach_the_embedded_server() -> None:
    variables = {
        "PGSSLMODE": "require",
        "PGTARGETSESSIONATTRS": "standby",
        "PGHOST": "elsewhere.invalid",
        "PGSERVICE": "unknown",
    }
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        result = subprocess.run(
            [sys.executable, "-m", "markethall", "migrate"],
            env={**os.environ, **DEFAULTS, **variables, "MARKETHALL_DATA_DIR": folder},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    assert result.returncode == 0, result.stderr


def test_memory_serves_one_worker_only() -> None:
    result = markethall("serve", "--memory", "--workers", "2")

    assert result.returncode == 2
    assert "memory storage serves one process and one worker" in result.stderr


def test_port_in_use_is_reported_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = markethall("serve", "--memory", "--port", port)
        of_metrics = markethall("serve", "--memory", "--port", "0", metrics_port=port)

    advice = (
        (result, "choose an address with --host and a port with --port"),
        (of_metrics, "choose a port with MARKETHALL_METRICS_PORT"),
    )
    for each, words in advice:
        assert each.returncode == 1
        (line,) = each.stderr.splitlines()
        assert line.startswith("error: cannot listen on 127.0.0.1:")
        assert line.endswith(words)


def test_banner_is_printed_when_the_port_is_bound() -> None:
    arguments = [sys.executable, "-m", "markethall", "serve", "--memory", "--port", "0"]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        lines = [process.stderr.readline() for _ in range(6)]
        address = lines[1].split()[1]
        with socket.create_connection(("127.0.0.1", urlsplit(address).port or 0)):
            process.terminate()

    assert "Markethall" in lines[0]
    assert f"{sys.executable} -m markethall demo" in lines[5]


def test_refused_database_is_awaited_and_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # without `listen`, so that connections are refused
        port = unused.getsockname()[1]
        url = f"postgresql://market:a-password@127.0.0.1:{port}/shop"
        result = markethall("migrate", database_url=url)

    assert result.returncode == 1
    waiting, error = result.stderr.splitlines()
    place = f"Postgres at 127.0.0.1:{port}"
    assert waiting == f"Waiting up to 10 s for {place}: connection refused"
    assert error == (
        f"error: {place} is not available: connection refused; see MARKETHALL_DATABASE_URL"
    )


def test_wrong_database_is_reported_at_once(server_url: str) -> None:
    result = markethall("migrate", database_url=f"{server_url}_unknown")

    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert '_unknown" does not exist; see MARKETHALL_DATABASE_URL' in line


async def test_database_that_starts_late_is_used(scratch: Path) -> None:
    server = EmbeddedPostgres(scratch / "late", durable=False)
    with server as url:
        pass
    waited: list[str] = []

    def start_on_report(line: str) -> None:
        waited.append(line)
        assert server.start() == url

    await asyncio.to_thread(wait_for_database, url, start_on_report, seconds=120)
    server.stop()

    assert len(waited) == 1
    assert "connection refused" in waited[0]


def test_first_start_says_that_the_database_is_created(scratch: Path) -> None:
    folder, lines = scratch / "first-start", list[str]()
    folder.mkdir()
    folder.chmod(0o755)
    for _ in range(2):
        with EmbeddedPostgres(folder, durable=False, report=lines.append):
            pass

    assert lines == [f"Creating the database in {folder} (first start, about 5 s)"]


def test_version_option() -> None:
    assert markethall("--version").stdout.strip() == "0.1.0"


def test_create_staff_is_idempotent(database_url: str, tmp_path: Path) -> None:
    arguments = ("create-staff", "boss@example.com", "--role", "admin", "--password-stdin")
    database = {"database_url": database_url, "data_dir": str(tmp_path)}

    first = markethall(*arguments, given="a long enough sentence\n", **database)
    second = markethall(*arguments, given="a long enough sentence\n", **database)

    assert first.returncode == 0, first.stderr
    assert "is admin now" in first.stdout
    assert second.returncode == 1
    assert "refused" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    assert "Traceback" not in second.stderr


def test_demo_is_idempotent(database_url: str, tmp_path: Path) -> None:
    database = {"database_url": database_url, "data_dir": str(tmp_path)}

    first, second = markethall("demo", **database), markethall("demo", **database)

    vouchers = "Vouchers: WELCOME10 (10 % off), FREESHIP (free shipping)"
    assert first.stdout.splitlines() == [
        "24 products added.",
        "3 shipping methods, 6 tax rates and 2 vouchers added.",
        vouchers,
    ], first.stderr
    assert second.stdout.splitlines() == [
        "0 products added.",
        "0 shipping methods, 0 tax rates and 0 vouchers added.",
        vouchers,
    ]


def test_generated_catalogue_is_created_once_and_grows(database_url: str, tmp_path: Path) -> None:
    database = {"database_url": database_url, "data_dir": str(tmp_path)}

    first = markethall("demo", "--products", "300", **database)
    second = markethall("demo", "--products", "300", **database)
    larger = markethall("demo", "--products", "350", **database)

    assert first.stdout.strip() == "300 products added.", first.stderr
    assert second.stdout.strip() == "0 products added."
    assert larger.stdout.strip() == "50 products added."


async def test_incomplete_generated_catalogue_fails(
    database_url: str, postgres: Postgres, tmp_path: Path
) -> None:
    """The import refuses a row whose stock is below the reserved units of its product."""
    row = min(generate_products(30), key=lambda row: row["on_hand"])
    inventory_app = build_inventory_app("sql", postgres)
    product = await inventory_app.product(row["sku"].lower(), stock=row["on_hand"] + 1)
    reservation = await inventory_app.reserve({product.product_id: row["on_hand"] + 1})
    await inventory_app.inventory.commit(ANYONE, reservation.reservation_id)

    result = await asyncio.to_thread(
        markethall, "demo", "--products", "30", database_url=database_url, data_dir=str(tmp_path)
    )

    assert result.returncode == 1
    reserved = row["on_hand"] + 1
    assert f"on_hand: {reserved} are reserved (inventory.would_go_negative)" in result.stdout
    assert "30 rows: 29 products, 1 failed. Products: 29 created" in result.stdout
    assert "Traceback" not in result.stderr


def test_migrate_is_idempotent(database_url: str, tmp_path: Path) -> None:
    result = markethall("migrate", database_url=database_url, data_dir=str(tmp_path))

    assert result.returncode == 0, result.stderr
    assert "up to date" in result.stdout


async def test_dead_letters_are_listed_and_requeued(database_url: str, tmp_path: Path) -> None:
    database = {"database_url": database_url, "data_dir": str(tmp_path)}
    event = OrderExpired(order_id=new_id(), reservation_id=new_id())
    envelope = wrap_event(event, system_context("test"), utc_now())
    connection = await asyncpg.connect(plain(database_url))
    await connection.execute(
        "INSERT INTO orders.inbox (handler, event_id, source_seq, type, version, key, payload,"
        " occurred_at, request_id, state, attempts, error, received_at, due_at)"
        " VALUES ('orders.on_order_expired', $1, 1, $2, 1, $3, $4, now(), 'r', 'dead', 8,"
        " 'it broke', now(), now())",
        envelope.event_id, envelope.type, envelope.key, envelope.payload,
    )  # fmt: skip

    listed = markethall("events", "dead", **database)
    retried = markethall("events", "retry", "--event-id", str(envelope.event_id), **database)
    state = await connection.fetchval("SELECT state FROM orders.inbox")
    await connection.execute("UPDATE orders.inbox SET state = 'done', done_at = now()")
    replayed = markethall("events", "replay", str(envelope.event_id), **database)
    again = await connection.fetchval("SELECT state FROM orders.inbox")
    await connection.close()

    assert str(envelope.event_id) in listed.stdout, listed.stderr
    assert "it broke" in listed.stdout
    assert retried.stdout.strip() == "1 events will be tried again."
    assert state == "waiting"
    assert replayed.stdout.strip() == "1 handlers will run again."
    assert again == "waiting"


def test_openapi_prints_the_document_of_the_served_contexts() -> None:
    result = markethall("openapi", contexts="inventory", context_urls="{}")

    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["openapi"].startswith("3.1")
    assert "/products" in document["paths"]
    assert "/users" not in document["paths"]


def test_exported_file_is_imported_again(database_url: str, tmp_path: Path) -> None:
    database = {"database_url": database_url, "data_dir": str(tmp_path)}
    source, exported = tmp_path / "source.csv", tmp_path / "exported.csv"
    source.write_text("sku,name,price\nA-1,One,1\nA-2,Two,cheap\nA-3,\u0141\u00f3d\u017a,3\n")

    imported = markethall("import", str(source), **database)
    to_file = markethall("export", str(exported), **database)
    to_output = markethall("export", **database)
    again = markethall("import", str(exported), **database)

    assert (imported.returncode, again.returncode) == (1, 0)
    assert "3 rows: 2 products, 1 failed. Products: 2 created" in imported.stdout
    assert (
        "2 rows: 2 products, 0 failed. Products: 0 created, 0 updated, 2 unchanged." in again.stdout
    )
    assert (to_file.returncode, to_file.stdout) == (0, "")
    assert exported.read_text() == to_output.stdout.replace("\r\n", "\n")
    assert "\u0141\u00f3d\u017a" in to_output.stdout
