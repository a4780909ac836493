"""A pytest plugin that marks the tests, runs fast ones first, and reports failures immediately.

- `unit`: in memory, without a server.
- `integration`: with Postgres, Valkey or another process.
- `slow`: suites with many processes, races, or many combinations of states or faults.
- `browser`: in a real Chromium.
- `portable`: to repeat on each version of Python. These are the unit tests, and enough others to
  use Postgres, Valkey, HTTP, a server process and the command line. Of a test with parameters, only
  the first case in memory and the first with servers.
"""

from collections.abc import Collection, Iterable, Iterator
from pathlib import PurePath
from typing import Final

import pytest

_SERVER_FIXTURES: Final = frozenset({"server_url", "redis_url", "scratch"})
# words in parameter ids; a `remote` test calls an implementation on Postgres over RPC
_SERVER_STORAGES: Final = frozenset({"sql", "remote", "redis", "postgres"})
_BROWSER_FOLDER: Final = "browser"
_PROCESS_FOLDERS: Final = frozenset(
    {_BROWSER_FOLDER, "acidrain", "e2e", "local_cluster", "partitions"}
)
_PROCESS_FILES: Final = frozenset({"test_cli", "test_local_servers", "test_local_servers_as_root"})
_SLOW_FILES: Final = frozenset(
    {
        "test_api_schema",
        "test_backup",
        "test_event_delivery",
        "test_import_kills",
        "test_local_servers_as_root",
        "test_money_races",
        "test_races",
        "test_redis_stream_kills",
        "test_relocation",
        "test_split_trace",
        "test_stateful",
        "test_store_mutants",
        "test_whole_life",
    }
)
# Files whose tests are `portable`, except slow tests and tests with the parameter `remote`, which
# repeat the tests with the parameter `sql`.
_PORTABLE_FILES: Final = frozenset(
    {
        "test_app",
        "test_cache",
        "test_cache_coherence",
        "test_catalogue",
        "test_categories",
        "test_cli",
        "test_contract",
        "test_events",
        "test_export",
        "test_families",
        "test_idempotency",
        "test_import_routes",
        "test_imports",
        "test_payment_api",
        "test_postgres",
        "test_rate_limits",
        "test_redis_streams",
        "test_reservations",
        "test_search",
        "test_stock",
        "test_webhooks",
        "test_with_real_contexts",
    }
)
_PORTABLE_SERVER: Final = (("e2e", "test_flow.py"), "postgres")


def kind_of(path: str, fixtures: Iterable[str], parameter: str) -> set[str]:
    """Return the markers of a test, from its file, its fixtures and the id of its parameters."""
    file = PurePath(path)
    is_in_process_folder = not _PROCESS_FOLDERS.isdisjoint(file.parts)
    needs_server = (
        is_in_process_folder
        or file.stem in _PROCESS_FILES
        or not _SERVER_FIXTURES.isdisjoint(fixtures)
        or not _SERVER_STORAGES.isdisjoint(parameter.split("-"))
    )
    kinds = {"integration" if needs_server else "unit"}
    if is_in_process_folder or file.stem in _SLOW_FILES:
        kinds.add("slow")
    if _BROWSER_FOLDER in file.parts:
        kinds.add("browser")
    if kinds == {"unit"} or _is_in_portable_pass(file, kinds, parameter):
        kinds.add("portable")
    return kinds


def _is_in_portable_pass(file: PurePath, kinds: Collection[str], parameter: str) -> bool:
    if (file.parts[-2:], parameter) == _PORTABLE_SERVER:
        return True
    is_remote = "remote" in parameter.split("-")
    return file.stem in _PORTABLE_FILES and "slow" not in kinds and not is_remote


def repeated_cases(cases: Iterable[tuple[str, Collection[str]]]) -> Iterator[bool]:
    """Yield whether an earlier case, a name and its markers, has the same name and markers.

    A test that runs in memory and on Postgres has a first case of each.
    """
    found = set()
    for name, kinds in cases:
        case = (name, frozenset(kinds))
        yield case in found
        found.add(case)


def run_first(kinds: Collection[str]) -> int:
    """Return the sort key of a test: unit tests first, slow ones last."""
    return 2 if "slow" in kinds else int("unit" not in kinds)


@pytest.hookimpl(trylast=True)  # after pytest has registered the terminal reporter
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "unit: in memory, without a server")
    config.addinivalue_line("markers", "integration: with a database, a Valkey or a process")
    config.addinivalue_line("markers", "slow: many processes, races, sweeps")
    config.addinivalue_line("markers", "browser: in a real Chromium")
    config.addinivalue_line("markers", "portable: what a version of Python can break")
    if reporter := config.pluginmanager.get_plugin("terminalreporter"):
        config.pluginmanager.register(FailureReporter(reporter))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    kinds_of_items = {item: _kinds(item) for item in items}
    cases = [(item.nodeid.partition("[")[0], kinds) for item, kinds in kinds_of_items.items()]
    for (_, kinds), is_repeated in zip(cases, list(repeated_cases(cases)), strict=True):
        if is_repeated:
            kinds.discard("portable")
    for item, kinds in kinds_of_items.items():
        for kind in kinds:
            item.add_marker(kind)
    items.sort(key=lambda item: run_first(kinds_of_items[item]))


def _kinds(item: pytest.Item) -> set[str]:
    callspec = getattr(item, "callspec", None)
    fixtures = getattr(item, "fixturenames", ())
    return kind_of(item.nodeid.partition("::")[0], fixtures, callspec.id if callspec else "")


class FailureReporter:
    """Prints each failure when it happens, and the total duration of the slow tests at the end."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter
        self._slow_seconds: list[float] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and "slow" in report.keywords:
            self._slow_seconds.append(report.duration)
        if report.failed:
            self._reporter.ensure_newline()
            self._reporter.write_line(f"failed: {report.nodeid}: {_reason(report)}", red=True)

    def pytest_terminal_summary(self) -> None:
        if self._slow_seconds:
            count, seconds = len(self._slow_seconds), sum(self._slow_seconds)
            self._reporter.write_line(
                f"{count} slow tests took {seconds:.0f} s in all; -m 'not slow' omits them"
            )


def _reason(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longreprtext).partition("\n")[0]
