"""Test the markers, the order of the tests, and which objects garbage collections check."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from tests.markers import kind_of, repeated_cases, run_first


@pytest.mark.parametrize(
    ("path", "fixtures", "parameter", "kinds"),
    [
        ("tests/users/test_domain.py", [], "", {"unit", "portable"}),
        ("tests/users/test_contract.py", ["users_app"], "memory", {"unit", "portable"}),
        ("tests/users/test_contract.py", ["users_app"], "sql-3", {"integration", "portable"}),
        ("tests/users/test_contract.py", ["users_app"], "remote-3", {"integration"}),
        ("tests/users/test_constraints.py", ["postgres", "server_url"], "", {"integration"}),
        ("tests/e2e/test_flow.py", ["server"], "postgres", {"integration", "slow", "portable"}),
        ("tests/e2e/test_flow.py", ["server"], "workers", {"integration", "slow"}),
        (
            "tests/shared/test_postgres.py",
            ["postgres", "server_url"],
            "",
            {"integration", "portable"},
        ),
        ("tests/local_cluster/test_routing.py", [], "", {"integration", "slow"}),
        ("tests/inventory/test_races.py", ["server_url"], "", {"integration", "slow"}),
        ("tests/browser/test_docs_page.py", [], "", {"integration", "slow", "browser"}),
        ("tests/test_local_servers.py", ["folder"], "", {"integration"}),
    ],
)
def test_kind_follows_from_folder_fixtures_and_storage(
    path: str, fixtures: list[str], parameter: str, kinds: set[str]
) -> None:
    assert kind_of(path, fixtures, parameter) == kinds


def test_fast_tests_run_first() -> None:
    kinds = [{"integration", "slow"}, {"integration"}, {"unit"}]

    assert sorted(kinds, key=run_first) == [{"unit"}, {"integration"}, {"integration", "slow"}]


def test_first_case_of_each_kind_is_not_repeated() -> None:
    memory, sql = {"unit", "portable"}, {"integration", "portable"}
    cases = [("a", memory), ("a", sql), ("a", memory), ("b", memory), ("a", sql)]

    assert list(repeated_cases(cases)) == [False, False, True, False, True]


def test_only_the_first_case_with_parameters_is_portable() -> None:
    file = "tests/users/test_contract.py::test_confusable_username_is_rejected"
    command = ["-m", "pytest", "-n0", "-q", "--collect-only", "-m", "portable", file]

    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)

    assert "2/" in done.stdout.splitlines()[-1]


def test_markers_select_tests() -> None:
    files = ["tests/users/test_contract.py", "tests/users/test_domain.py"]
    command = ["-m", "pytest", "-n0", "-q", "--collect-only", "-m", "integration and portable"]

    done = subprocess.run(
        [sys.executable, *command, *files], capture_output=True, text=True, check=True
    )

    assert "[sql" in done.stdout
    assert "[memory" not in done.stdout
    assert "[remote" not in done.stdout
    assert "test_domain.py" not in done.stdout


def test_failure_is_reported_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "test_two.py"
    path.write_text("def test_wrong(): assert 1 == 2\ndef test_right(): pass\n")
    plugins = ["-p", "tests.markers", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", "/dev/null", "-v", *plugins, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )

    failed = done.stdout.index("failed: test_two.py::test_wrong: assert 1 == 2")
    assert failed < done.stdout.index("test_two.py::test_right")


def test_garbage_collections_do_not_check_the_imported_modules() -> None:
    # the classes and functions of FastAPI and SQLAlchemy alone are more
    assert gc.get_freeze_count() > 20_000
