"""Test that every model can be built, because a process builds each at its first use."""

import pkgutil
from collections.abc import Iterator
from importlib import import_module

import pytest
from pydantic import BaseModel

import markethall

# these run a program or create the application when they are imported
PROGRAMS = {"markethall.__main__", "markethall.asgi"}


def models() -> Iterator[type[BaseModel]]:
    for module in pkgutil.walk_packages(markethall.__path__, "markethall."):
        if module.name not in PROGRAMS:
            for value in vars(import_module(module.name)).values():
                if isinstance(value, type) and issubclass(value, BaseModel):
                    yield value


MODELS = {
    f"{model.__module__}.{model.__name__}": model
    for model in models()
    if model.__module__.startswith("markethall.")
}


@pytest.mark.parametrize("name", MODELS)
def test_model_can_be_built(name: str) -> None:
    MODELS[name].model_rebuild(raise_errors=True)

    assert MODELS[name].__pydantic_complete__


def test_models_of_every_built_in_context_are_found() -> None:
    contexts = {name.split(".")[1] for name in MODELS}

    assert {"users", "inventory", "orders", "payments", "shared"} <= contexts
