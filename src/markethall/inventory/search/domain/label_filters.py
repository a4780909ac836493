"""The filters by option and attribute, compared by the keys of names and values."""

from collections.abc import Mapping, Sequence

from markethall.inventory.catalogue.domain.text_keys import label_key


def filter_keys(filters: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
    """Return the `label_key` of each name, with the `label_key`s of its values, both sorted.

    The values of names with the same key are joined.
    """
    keys: dict[str, set[str]] = {}
    for name, values in filters.items():
        keys.setdefault(label_key(name), set()).update(map(label_key, values))
    return {name: sorted(keys[name]) for name in sorted(keys)}


def matches_keys(keys: Mapping[str, str], filters: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether the product has, for each name of the filters, one of its values.

    `keys` is the result of `option_keys` or `attribute_keys`, `filters` that of `filter_keys`.
    """
    return all(keys.get(name) in values for name, values in filters.items())
