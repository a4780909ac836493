"""Merge equal tags, option names and attribute names.

Two of them are equal if they have the same `label_key`, so "Red" equals "red". The first spelling
stays.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from markethall.inventory.catalogue.domain.text_keys import label_key, spelling_key


def fold_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Drop each tag that equals an earlier tag."""
    first: dict[str, str] = {}
    for tag in tags:
        first.setdefault(label_key(tag), tag)
    return tuple(first.values())


def fold_names(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Drop each entry whose name equals an earlier name."""
    first: dict[str, str] = {}
    for name in values:
        first.setdefault(label_key(name), name)
    return {name: values[name] for name in first.values()}


def respell_tags(current: Iterable[str], tags: Iterable[str]) -> tuple[str, ...]:
    """Replace each tag that equals a current tag by the current tag, to keep its spelling."""
    spelling = {label_key(tag): tag for tag in current}
    return tuple(spelling.get(label_key(tag), tag) for tag in tags)


def respell_names(current: Iterable[str], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Replace each name that equals a current name by the current name, to keep its spelling."""
    spelling = {label_key(name): name for name in current}
    return {spelling.get(label_key(name), name): value for name, value in values.items()}


def respell_options(current: Mapping[str, str], options: Mapping[str, str]) -> Mapping[str, str]:
    """Keep the current spelling of equal names, and of values with the same `spelling_key`."""
    respelled = respell_names(current, options)
    return {
        name: current[name] if _looks_same(current.get(name), value) else value
        for name, value in respelled.items()
    }


def _looks_same(current: str | None, value: str) -> bool:
    return current is not None and spelling_key(current) == spelling_key(value)


def option_keys(options: Mapping[str, str]) -> Mapping[str, str]:
    return {label_key(name): label_key(value) for name, value in options.items()}


def attribute_keys(attributes: Mapping[str, str | int | bool]) -> Mapping[str, str]:
    """Return the `label_key` of each name, with the `label_key` of the text of its value.

    An attribute whose text is empty or has only spaces has no key, so no filter finds it.
    """
    keys = ((label_key(name), label_key(attribute_text(attributes[name]))) for name in attributes)
    return {name: value for name, value in keys if value}


def attribute_text(value: str | int | bool) -> str:
    """Return the text by which a filter finds an attribute: true, false, digits, or the text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def find_attribute(
    attributes: Mapping[str, str | int | bool], name_key: str
) -> tuple[str, str] | None:
    """Return the name, and the text of the value, of the attribute with this `label_key`.

    Return None if no name has it, as in `find_option`.
    """
    return find_option({name: attribute_text(attributes[name]) for name in attributes}, name_key)


def find_option(options: Mapping[str, str], name_key: str) -> tuple[str, str] | None:
    """Return the name and the value of the option whose name has this `label_key`.

    Return None if no name has it: a Python version with older Unicode data may have computed the
    stored `name_key`.
    """
    found = ((name, value) for name, value in options.items() if label_key(name) == name_key)
    return next(found, None)
