"""The generated network policies follow the tables of the topology."""

import pytest

from k8s.tests.rendered import REPOSITORY, parsed
from markethall.contexts import DEPENDENCIES, JWKS_SOURCES, Context
from scripts.check_manifests import findings
from scripts.generate_network import OVERLAYS, Connection, connections, main, network

# written by hand: the tables must lead to the same connections
CALLS = {("orders", "users"), ("orders", "inventory"), ("orders", "payments")}
KEYS_OF_USERS = {("orders", "users"), ("inventory", "users"), ("payments", "users")}
KEYS_OF_SERVICES = {("users", "orders"), ("inventory", "orders"), ("payments", "orders")}
SPLIT = OVERLAYS["split"]


def edges(found: list[Connection]) -> set[tuple[str, str]]:
    return {(each.source, each.target) for each in found}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_file_is_current(overlay: str) -> None:
    file = REPOSITORY / "k8s" / "overlays" / overlay / "network.yaml"

    assert file.read_text() == network(OVERLAYS[overlay]), "run make docs"


def test_split_opens_calls_and_the_reading_of_keys_only() -> None:
    found = connections(SPLIT)

    assert edges(found) == CALLS | KEYS_OF_USERS | KEYS_OF_SERVICES
    assert edges([each for each in found if each.calls]) == CALLS
    assert edges([each for each in found if each.keys]) == KEYS_OF_USERS | KEYS_OF_SERVICES


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
    assert connections({"monolith": frozenset(Context)}) == []


def test_a_call_in_the_table_opens_a_connection_and_a_removed_one_closes_it() -> None:
    more = {**DEPENDENCIES, Context.PAYMENTS: frozenset({Context.INVENTORY})}
    fewer = {**DEPENDENCIES, Context.ORDERS: DEPENDENCIES[Context.ORDERS] - {Context.PAYMENTS}}

    opened = edges(connections(SPLIT, more, JWKS_SOURCES)) - edges(connections(SPLIT))
    closed = edges(connections(SPLIT)) - edges(connections(SPLIT, fewer, JWKS_SOURCES))

    assert (opened, closed) == ({("payments", "inventory")}, {("orders", "payments")})
    assert "# payments calls inventory\n" in network(SPLIT, more, JWKS_SOURCES)
    assert "# orders calls payments\n" not in network(SPLIT, fewer, JWKS_SOURCES)


def test_the_check_misses_every_generated_policy_that_is_removed() -> None:
    """The check does not use the generator."""
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
