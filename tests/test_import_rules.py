"""Test that the import rules hold and that a planted violation breaks each of them."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# maps each rule to violations of it: a file, and a line that the test appends to the file
PLANTED = {
    "Top to bottom; a new file or folder must be placed here": [
        ("shared/kernel/clock.py", "import markethall.users.contract"),
        ("settings/reading.py", "import markethall.app"),
        ("helpers.py", "x = 1"),
    ],
    "Inside shared, top to bottom; a new package must be placed here": [
        ("shared/kernel/model.py", "import markethall.shared.observability.log"),
        ("shared/cache/ports.py", "import markethall.shared.messaging.events"),
        ("shared/http/responses.py", "import markethall.shared.rpc.client"),
        ("shared/helpers.py", "x = 1"),
    ],
    "Tools for one machine, top to bottom; the embedded servers know no application": [
        ("local/errors.py", "import markethall.local.valkey"),
        ("local/postgres/server.py", "import markethall.local.cluster.app"),
        ("local/helpers.py", "x = 1"),
    ],
    "Contexts know each other by contract, and only a service looks": [
        ("orders/service/views.py", "import markethall.inventory.domain"),
        ("orders/service/views.py", "import markethall.inventory.stock.contract"),
        ("orders/domain/order.py", "import markethall.payments.contract"),
        ("users/service/accounts.py", "import markethall.inventory.contract"),
    ],
    "Inside a context or sub-domain, top to bottom; a new kind of file must be placed here": [
        ("users/domain/user.py", "import markethall.users.ports"),
        ("users/memory.py", "import markethall.users.sql"),
        ("users/utils.py", "x = 1"),
        (
            "inventory/stock/domain.py",
            "import markethall.inventory.stock.ports",
        ),
        ("inventory/search/memory.py", "import markethall.inventory.search.sql.store"),
        ("inventory/imports/utils.py", "x = 1"),
    ],
    "Sub-domains of inventory, top to bottom; a new one must be placed here": [
        ("inventory/catalogue/service/api.py", "import markethall.inventory.stock.ports"),
        ("inventory/stock/sql/tables.py", "import markethall.inventory.reservations.sql.tables"),
        ("inventory/imports/service/jobs.py", "import markethall.inventory.search.ports"),
        ("inventory/contract.py", "import markethall.inventory.catalogue.contract.products"),
        ("inventory/helpers.py", "x = 1"),
    ],
    "Inside orders, top to bottom; a new sub-domain must be placed here": [
        ("orders/domain/order.py", "import markethall.orders.ports"),
        ("orders/totals/domain/taxes.py", "import markethall.orders.contract"),
        ("orders/helpers.py", "x = 1"),
    ],
    "Search needs only the catalogue": [
        ("inventory/search/sql/store.py", "import markethall.inventory.stock.sql.tables"),
    ],
    "Contracts, domain, ports and services import no framework, also not through others": [
        ("users/service/accounts.py", "import fastapi"),
        ("inventory/catalogue/contract/products.py", "import sqlalchemy"),
        ("payments/ports/gateway.py", "import redis"),
        ("orders/service/views.py", "import dependency_injector.providers"),
        ("inventory/stock/service/api.py", "import markethall.inventory.stock.router"),
        ("inventory/search/ports.py", "import markethall.shared.persistence.postgres"),
        ("orders/service/views.py", "import markethall.shared.http.route_policies"),
        ("shared/kernel/ids.py", "import starlette"),
    ],
    "Only a container uses the container library": [
        ("users/router.py", "import dependency_injector.providers"),
        ("inventory/stock/router.py", "import markethall.shared.composition.providers"),
        ("shared/http/dependencies.py", "import dependency_injector.wiring"),
    ],
    "Only a container names an implementation": [
        ("app.py", "import markethall.users.service"),
        ("users/router/accounts.py", "import markethall.users.sql"),
        ("inventory/stock/router.py", "import markethall.inventory.stock.service.api"),
        ("operations/endpoints.py", "import markethall.payments.gateway"),
    ],
    "Only a payment gateway uses the SDK of its provider": [
        ("payments/service/webhooks.py", "import stripe"),
        ("payments/gateway/sandbox.py", "import stripe"),
    ],
}


@pytest.fixture(scope="module")
def source_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rules")
    ignored = shutil.ignore_patterns("__pycache__", "swagger-ui*")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_import_rules_hold(source_copy: Path) -> None:
    assert f"{len(PLANTED)} kept, 0 broken" in lint(source_copy)


def test_every_rule_has_a_planted_violation() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())

    rules = {contract["name"] for contract in settings["tool"]["importlinter"]["contracts"]}
    assert rules == set(PLANTED)


@pytest.mark.parametrize(
    ("rule", "file", "line"),
    [(rule, *plant) for rule, plants in PLANTED.items() for plant in plants],
)
def test_planted_import_violates_its_rule(
    source_copy: Path, rule: str, file: str, line: str
) -> None:
    path = source_copy / "src" / "markethall" / file
    before = path.read_text() if path.exists() else None
    path.write_text(f"{before or ''}\n{line}\n")

    output = lint(source_copy)

    if before is None:
        path.unlink()
    else:
        path.write_text(before)
    assert is_broken(output, rule), output


def is_broken(output: str, rule: str) -> bool:
    """Tell whether the output names a violation of the rule, or a file that is in no layer."""
    return (
        f"{rule} BROKEN" in output or "not listed as layers" in output or "Missing layer" in output
    )


def lint(folder: Path) -> str:
    program = Path(sys.executable).with_name("lint-imports")
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "COLUMNS": "300"}
    command = [str(program), "--no-cache", "--config", str(folder / "pyproject.toml")]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr
