"""The generated network policies follow the manifests of the contexts."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from k8s.tests.rendered import REPOSITORY, parsed
from markethall.contexts import context_names, topology
from markethall.shared.composition.topology import Topology
from scripts.check_manifests import findings
from scripts.generate_network import OVERLAYS, Connection, connections, main, network

# the expected connections, written by hand: the tested code derives them from the manifests
CALLS = {("orders", "users"), ("orders", "inventory"), ("orders", "payments")}
KEYS_OF_USERS = {("orders", "users"), ("inventory", "users"), ("payments", "users")}
KEYS_OF_CALLERS = {("users", "orders"), ("inventory", "orders"), ("payments", "orders")}
KEYS_OF_PUBLISHERS = {("orders", "payments")}
KEYS = KEYS_OF_USERS | KEYS_OF_CALLERS | KEYS_OF_PUBLISHERS
SPLIT = OVERLAYS["split"]


def with_calls(caller: str, calls: Mapping[str, frozenset[str]]) -> Topology:
    """Return the topology with other calls of one context."""
    return Topology(
        [
            replace(manifest, calls=calls) if manifest.name == caller else manifest
            for manifest in topology().manifests
        ]
    )


def edges(found: list[Connection]) -> set[tuple[str, str]]:
    return {(each.source, each.target) for each in found}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_file_is_current(overlay: str) -> None:
    file = REPOSITORY / "k8s" / "overlays" / overlay / "network.yaml"

    assert file.read_text() == network(OVERLAYS[overlay]), "run make docs"


def test_split_opens_calls_and_the_reading_of_keys_only() -> None:
    found = connections(SPLIT)

    assert edges(found) == CALLS | KEYS
    assert edges([each for each in found if each.calls]) == CALLS
    assert edges([each for each in found if each.keys]) == KEYS


def test_one_extracted_context_opens_one_connection_in_each_direction() -> None:
    found = connections(OVERLAYS["relocation"])

    assert {(each.source, each.target, each.reason) for each in found} == {
        ("monolith", "inventory", "orders calls inventory"),
        (
            "inventory",
            "monolith",
            "inventory reads the keys of orders, inventory reads the keys of users",
        ),
    }


def test_one_process_needs_no_connection() -> None:
    assert connections({"monolith": frozenset(context_names())}) == []


def test_an_added_call_opens_connections_and_a_removed_one_closes_them() -> None:
    calls = topology().contexts["orders"].calls
    more = with_calls("payments", {"inventory": frozenset({"reserve"})})
    fewer = with_calls("orders", {t: m for t, m in calls.items() if t != "inventory"})

    opened = edges(connections(SPLIT, more)) - edges(connections(SPLIT))
    closed = edges(connections(SPLIT)) - edges(connections(SPLIT, fewer))

    # the called context also reads the keys of its caller
    assert opened == {("payments", "inventory"), ("inventory", "payments")}
    assert closed == {("orders", "inventory"), ("inventory", "orders")}
    assert "# payments calls inventory\n" in network(SPLIT, more)
    assert "# orders calls inventory" not in network(SPLIT, fewer)


def test_the_check_misses_every_generated_policy_that_is_removed() -> None:
    """The check must not use the generator, because it would repeat the generator's mistakes."""
    names = [each["metadata"]["name"] for each in parsed("split")]
    generated = [name for name in names if name.endswith("-contexts")]

    for name in generated:
        others = [each for each in parsed("split") if each["metadata"]["name"] != name]
        assert any("is closed" in finding for finding in findings(others)), name

    assert len(generated) == 8


def test_the_command_reports_that_the_files_are_current(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(check=True) == 0
    assert capsys.readouterr().out == ""
