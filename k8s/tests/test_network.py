"""The policies between processes are what the tables say, and follow them."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from k8s.rendered import REPOSITORY, Document, Manifests, parsed

from markethall.contexts import context_names, topology
from markethall.shared.composition.topology import Topology
from scripts.check_manifests import findings
from scripts.generate_network import OVERLAYS, Way, main, network, ways

# who asks whom for what when all four are apart, in words: the tables must come out at this
CALLS = {("orders", "users"), ("orders", "inventory"), ("orders", "payments")}
KEYS_OF_PEOPLE = {("orders", "users"), ("inventory", "users"), ("payments", "users")}
KEYS_OF_SERVICES = {("users", "orders"), ("inventory", "orders"), ("payments", "orders")}


def with_calls(caller: str, calls: Mapping[str, frozenset[str]]) -> Topology:
    """Return the topology in which this context makes these calls instead of its own."""
    return Topology(
        [
            replace(manifest, calls=calls) if manifest.name == caller else manifest
            for manifest in topology().manifests
        ]
    )


def edges(found: list[Way]) -> set[tuple[str, str]]:
    return {(way.source, way.target) for way in found}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_network_policy_file_matches_topology(overlay: str) -> None:
    file = REPOSITORY / "k8s" / overlay / "network.yaml"

    assert file.read_text() == network(OVERLAYS[overlay]), "run make docs"


def test_split_overlay_allows_only_calls_and_jwks() -> None:
    found = ways(OVERLAYS["apart"])

    assert edges(found) == CALLS | KEYS_OF_PEOPLE | KEYS_OF_SERVICES
    assert {(way.source, way.target) for way in found if way.calls} == CALLS
    assert {(way.source, way.target) for way in found if way.keys} == (
        KEYS_OF_PEOPLE | KEYS_OF_SERVICES
    )


def test_extracted_context_allows_its_calls_only() -> None:
    found = ways(OVERLAYS["moving"])

    assert {(way.source, way.target, way.why) for way in found} == {
        ("hall", "inventory", "orders calls inventory"),
        (
            "inventory",
            "hall",
            "inventory reads the keys of orders, inventory reads the keys of users",
        ),
    }


def test_monolith_overlay_needs_no_internal_edges() -> None:
    assert ways({"hall": frozenset(context_names())}) == []


def test_added_call_adds_edge() -> None:
    apart = OVERLAYS["apart"]

    changed = with_calls("payments", {"inventory": frozenset({"reserve"})})

    opened = edges(ways(apart, changed)) - edges(ways(apart))
    assert opened == {("payments", "inventory"), ("inventory", "payments")}
    assert "# payments calls inventory\n" in network(apart, changed)


def test_removed_call_removes_edge() -> None:
    apart = OVERLAYS["apart"]
    calls = topology().contexts["orders"].calls

    changed = with_calls("orders", {t: m for t, m in calls.items() if t != "payments"})

    closed = edges(ways(apart)) - edges(ways(apart, changed))
    assert closed == {("orders", "payments"), ("payments", "orders")}
    assert "orders calls payments" not in network(apart, changed)


def test_check_and_generator_agree() -> None:
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


def test_command_reports_outdated_files(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(check=True) == 0
    assert capsys.readouterr().out == ""
