"""The policies between processes are what the tables say, and follow them."""

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from k8s.rendered import REPOSITORY, Document, Manifests, parsed

import markethall.topology
from markethall.topology import Context
from scripts.check_manifests import findings
from scripts.generate_network import OVERLAYS, Way, main, network, ways

# who asks whom for what when all four are apart, in words: the tables must come out at this
CALLS = {("orders", "users"), ("orders", "inventory"), ("orders", "payments")}
KEYS_OF_PEOPLE = {("orders", "users"), ("inventory", "users"), ("payments", "users")}
KEYS_OF_SERVICES = {("users", "orders"), ("inventory", "orders"), ("payments", "orders")}

Edit = Callable[[str], str]


@pytest.fixture
def edited(tmp_path: Path) -> Callable[[Edit], ModuleType]:
    """The tables, as they would be if somebody edited the file."""

    def edit(change: Edit) -> ModuleType:
        before = Path(markethall.topology.__file__).read_text()
        file = tmp_path / "topology.py"
        file.write_text(change(before))
        assert file.read_text() != before
        spec = spec_from_file_location("edited_topology", file)
        assert spec
        assert spec.loader
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return edit


def edges(found: list[Way]) -> set[tuple[str, str]]:
    return {(way.source, way.target) for way in found}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_file_is_what_the_tables_say(overlay: str) -> None:
    file = REPOSITORY / "k8s" / overlay / "network.yaml"

    assert file.read_text() == network(OVERLAYS[overlay]), "run make docs"


def test_apart_opens_the_calls_and_the_fetching_of_keys_and_nothing_else() -> None:
    found = ways(OVERLAYS["apart"])

    assert edges(found) == CALLS | KEYS_OF_PEOPLE | KEYS_OF_SERVICES
    assert {(way.source, way.target) for way in found if way.calls} == CALLS
    assert {(way.source, way.target) for way in found if way.keys} == (
        KEYS_OF_PEOPLE | KEYS_OF_SERVICES
    )


def test_one_stall_out_opens_one_way_each() -> None:
    found = ways(OVERLAYS["moving"])

    assert {(way.source, way.target, way.why) for way in found} == {
        ("hall", "inventory", "orders calls inventory"),
        (
            "inventory",
            "hall",
            "inventory reads the keys of orders, inventory reads the keys of users",
        ),
    }


def test_nothing_is_opened_inside_one_process() -> None:
    assert ways({"hall": frozenset(Context)}) == []


def test_a_caller_added_to_the_table_opens_a_way(
    edited: Callable[[Edit], ModuleType],
) -> None:
    apart = OVERLAYS["apart"]

    table = edited(
        lambda text: text.replace(
            '"reserve": frozenset({Context.ORDERS})',
            '"reserve": frozenset({Context.ORDERS, Context.PAYMENTS})',
        )
    )

    opened = edges(ways(apart, table.NEEDS, table.KEYS)) - edges(ways(apart))
    assert opened == {("payments", "inventory"), ("inventory", "payments")}
    assert "# payments calls inventory\n" in network(apart, table.NEEDS, table.KEYS)


def test_a_caller_removed_from_the_table_closes_a_way(
    edited: Callable[[Edit], ModuleType],
) -> None:
    apart = OVERLAYS["apart"]

    table = edited(
        lambda text: (
            text.replace('"open": frozenset({Context.ORDERS})', '"open": frozenset()')
            .replace('"cancel": frozenset({Context.ORDERS})', '"cancel": frozenset()')
            .replace('"refund": frozenset({Context.ORDERS})', '"refund": frozenset()')
        )
    )

    closed = edges(ways(apart)) - edges(ways(apart, table.NEEDS, table.KEYS))
    assert closed == {("orders", "payments"), ("payments", "orders")}
    assert "orders calls payments" not in network(apart, table.NEEDS, table.KEYS)


def test_the_check_and_the_writer_agree_on_every_way() -> None:
    """The check does not trust the writer: a policy too few is a way that it misses."""
    manifests = Manifests("apart")
    written = [each for each in manifests.all("NetworkPolicy") if is_written(each)]

    for policy in written:
        without = [each for each in parsed("apart") if each != policy]
        assert any("is closed" in finding for finding in findings(without)), policy

    assert len(written) == 8


def is_written(policy: Document) -> bool:
    name: str = policy["metadata"]["name"]
    return name.endswith("-neighbours")


def test_the_command_says_whether_the_files_are_current(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(check=True) == 0
    assert capsys.readouterr().out == ""
