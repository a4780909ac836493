"""The filters by option and attribute, compared by the keys of names and values."""

from collections.abc import Mapping, Sequence

from markethall.inventory.catalogue.domain.text_keys import label_key


def filter_keys(filters: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
    """Map the `label_key` of each name to the sorted `label_key`s of its values, sorted by name.

    The values of names with the same key are combined.
    """
    keys: dict[str, set[str]] = {}
    for name, values in filters.items():
        keys.setdefault(label_key(name), set()).update(map(label_key, values))
    return {name: sorted(keys[name]) for name in sorted(keys)}


def matches_keys(keys: Mapping[str, str], filters: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether the product has, for each name in the filters, one of the given values.

    `keys` is the result of `option_keys` or `attribute_keys`, `filters` that of `filter_keys`.
    """
    return all(keys.get(name) in values for name, values in filters.items())
