"""Tags, and names of options and attributes: look-alikes are one, and its first spelling stays."""

from collections.abc import Iterable, Mapping
from typing import Any

from markethall.inventory.catalogue.domain.text_keys import label_key, spelling_key


def fold_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Drop the tags that look like an earlier one."""
    first: dict[str, str] = {}
    for tag in tags:
        first.setdefault(label_key(tag), tag)
    return tuple(first.values())


def fold_names(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Drop the values whose name looks like an earlier one."""
    first: dict[str, str] = {}
    for name in values:
        first.setdefault(label_key(name), name)
    return {name: values[name] for name in first.values()}


def respell_tags(current: Iterable[str], tags: Iterable[str]) -> tuple[str, ...]:
    """Spell the tags as the current ones are spelled."""
    spelling = {label_key(tag): tag for tag in current}
    return tuple(spelling.get(label_key(tag), tag) for tag in tags)


def respell_names(current: Iterable[str], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Spell the names as the current ones are spelled."""
    spelling = {label_key(name): name for name in current}
    return {spelling.get(label_key(name), name): value for name, value in values.items()}


def respell_options(current: Mapping[str, str], options: Mapping[str, str]) -> Mapping[str, str]:
    """Spell the names as the current ones are spelled, and values that only look the same."""
    respelled = respell_names(current, options)
    return {
        name: current[name] if _looks_same(current.get(name), value) else value
        for name, value in respelled.items()
    }


def _looks_same(current: str | None, value: str) -> bool:
    return current is not None and spelling_key(current) == spelling_key(value)


def option_keys(options: Mapping[str, str]) -> Mapping[str, str]:
    return {label_key(name): label_key(value) for name, value in options.items()}


def find_option(options: Mapping[str, str], name_key: str) -> tuple[str, str] | None:
    """Return the name and the value of the option with this key of the name.

    A key that was stored with an older version of Unicode may have none.
    """
    found = ((name, value) for name, value in options.items() if label_key(name) == name_key)
    return next(found, None)
