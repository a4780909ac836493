"""Test that clients cannot fill the memory through the caches of functions.

A cache without a bound keeps a result for each combination of arguments.
"""

import ast
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import pytest

import markethall
from markethall.inventory.catalogue.contract.fields import ProductStatus
from markethall.inventory.search.sql.product_page_statements import (
    PageQueryShape,
    family_page_statement,
    product_page_statement,
)

SOURCE: Final = Path(markethall.__file__).parent
FILTERS: Final = (
    "category", "family", "tag", "min_price", "max_price", "in_stock", "option", "attribute",
    "tsquery",
)  # fmt: skip
# functions whose arguments have few values and do not come from requests
EXCEPTIONS: Final = {
    "_known_revisions": "the names of the installed contexts",
    "_document_example": "the codes of the declared errors",
}


def functions_without_bound(source: str) -> Iterator[ast.FunctionDef]:
    """Yield the functions with `cache`, `lru_cache(None)` or `lru_cache(maxsize=None)`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            decorators = {
                ast.unparse(each).removeprefix("functools.") for each in node.decorator_list
            }
            if decorators & {"cache", "lru_cache(None)", "lru_cache(maxsize=None)"}:
                yield node


def has_few_combinations(function: ast.FunctionDef) -> bool:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    is_variadic = function.args.vararg or function.args.kwarg
    kinds = {ast.unparse(each.annotation) if each.annotation else "" for each in arguments}
    return not is_variadic and kinds <= {"bool", "bool | None"}


def test_caches_without_bound_are_keyed_by_booleans() -> None:
    found = [
        function
        for path in SOURCE.rglob("*.py")
        for function in functions_without_bound(path.read_text())
    ]

    too_many = [each.name for each in found if not has_few_combinations(each)]
    assert [name for name in too_many if name not in EXCEPTIONS] == []
    assert len(found) > 5


@pytest.mark.parametrize(
    "source",
    [
        "@cache\ndef f(name: str): ...",
        "@functools.cache\ndef f(*, names: tuple[str, ...]): ...",
        "@lru_cache(maxsize=None)\ndef f(*names: bool): ...",
    ],
)
def test_other_caches_without_bound_are_found(source: str) -> None:
    assert not any(map(has_few_combinations, functions_without_bound(source)))
    assert list(functions_without_bound(source))


@pytest.mark.parametrize("build", [product_page_statement, family_page_statement])
def test_statements_of_pages_do_not_fill_the_memory(build: Any) -> None:
    shapes = [
        PageQueryShape(
            frozenset(filters), ProductStatus.ACTIVE, order, 20,
            after=False, terms=0, of_families=build is family_page_statement,
        )
        for size in range(4)
        for filters in combinations(FILTERS, size)
        for order in ("name", "price", "-price")
    ]  # fmt: skip

    for shape in shapes:
        build(shape)

    assert len(shapes) > build.cache_info().maxsize == build.cache_info().currsize
