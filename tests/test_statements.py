"""Test that every SQL statement compiles, because the other tests may not execute all of them."""

import pkgutil
from collections.abc import Iterator
from importlib import import_module

import pytest

import markethall
from markethall.shared.persistence.postgres import Statement


def sql_modules() -> Iterator[str]:
    for module in pkgutil.walk_packages(markethall.__path__, "markethall."):
        if ".sql" in module.name:
            yield module.name


def statements_of(module: str) -> Iterator[tuple[str, Statement]]:
    """Yield the statements of a module, also those in its tables of statements."""
    for name, value in vars(import_module(module)).items():
        if isinstance(value, Statement):
            yield name, value
        elif isinstance(value, dict) and not name.startswith("__"):
            for key, entry in value.items():
                if isinstance(entry, Statement):
                    yield f"{name}[{key}]", entry


STATEMENTS = {
    f"{module.removeprefix('markethall.')}.{name}": statement
    for module in sql_modules()
    for name, statement in statements_of(module)
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_statement_compiles(name: str) -> None:
    assert STATEMENTS[name].sql


def test_statements_of_every_built_in_context_are_found() -> None:
    found = {name.partition(".")[0] for name in STATEMENTS}

    assert {"users", "inventory", "orders", "payments"} <= found
