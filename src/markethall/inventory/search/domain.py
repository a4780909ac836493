"""Search terms, the score of a product, filters by option and attribute, and facets.

The SQL store computes the same score in SQL.

The requested facets are divided into parts to count, and built from the counts. The count of a
facet ignores the filter of this facet, so two facets may be counted over different products. For
`options` and `attributes`, this holds for each name. A part is a facet, or a set of names of its
options or attributes, that is counted over one set of products.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from markethall.inventory.catalogue.domain.search_document import (
    MIN_CORRECTABLE_LENGTH,
    SearchDocument,
    split_words,
)
from markethall.inventory.catalogue.domain.text_keys import label_key, sku_key
from markethall.inventory.search.contract import (
    MAX_FACET_NAMES,
    MAX_FACET_VALUES,
    Facets,
    FacetValue,
)

# maps each facet whose values have names to the prefix of its filters, such as `option.size`, which
# is also the prefix of the facet of a single name
NAMED_FACETS: Final[Mapping[str, str]] = {"options": "option", "attributes": "attribute"}


@dataclass(frozen=True)
class FacetPart:
    """The values of one facet to count over the products that match all filters but `ignored`.

    `ignored` is the kind of filter that is left out: category, tag, option or attribute; empty if
    none is left out. `ignored_name` is the key of the name of the ignored option or attribute.
    `names` has the keys of the names to count. If it is None, all names are counted, except those
    in `other_names`, which other parts count.
    """

    facet: str
    ignored: str = ""
    ignored_name: str = ""
    names: tuple[str, ...] | None = None
    other_names: tuple[str, ...] = ()

    def counts_name(self, name_key: str) -> bool:
        return name_key not in self.other_names if self.names is None else name_key in self.names


@dataclass(frozen=True)
class FacetCount:
    """The number of products that have a value.

    `name` and `value` have the spelling of the product with the lowest id, `first_product_id`.
    `name` is the name of the option or attribute, or empty for other facets.
    """

    count: int
    name_key: str
    value_key: str
    first_product_id: str
    name: str
    value: str

    @property
    def sort_key(self) -> tuple[int, str, str]:
        """The key that sorts the most frequent values first."""
        return -self.count, self.name_key, self.value_key


def facet_parts(
    requested: Iterable[str], filters: Mapping[str, Collection[str]]
) -> Sequence[FacetPart]:
    """Return the parts of the requested facets.

    `filters` maps category and tag to the values of the filter, and option and attribute to the
    keys of the names that have a filter.
    """
    requested = frozenset(requested)
    parts = [
        FacetPart(facet, ignored=facet if filters[facet] else "")
        for facet in ("category", "tag")
        if facet in requested
    ]
    for facet, prefix in NAMED_FACETS.items():
        single = {
            label_key(name.partition(".")[2]) for name in requested if name.startswith(f"{prefix}.")
        }
        parts += _named_parts(facet, single, sorted(filters[prefix]), every=facet in requested)
    return parts


def _named_parts(
    facet: str, single: set[str], filtered: Sequence[str], *, every: bool
) -> Iterable[FacetPart]:
    own = [name for name in filtered if every or name in single]
    for name in own:
        yield FacetPart(facet, NAMED_FACETS[facet], name, names=(name,))
    others = tuple(sorted(single.difference(own)))
    if others:
        yield FacetPart(facet, names=others)
    if every:
        yield FacetPart(facet, other_names=tuple(sorted({*own, *others})))


def most_frequent(counts: Iterable[FacetCount], *, by_name: bool) -> Sequence[FacetCount]:
    """Keep the most frequent values of each name, and the names with the highest sums of counts."""
    ordered = sorted(counts, key=lambda count: count.sort_key)
    if not by_name:
        return ordered[:MAX_FACET_VALUES]
    totals: dict[str, int] = {}
    for count in ordered:
        totals[count.name_key] = totals.get(count.name_key, 0) + count.count
    names = set(sorted(totals, key=lambda name: (-totals[name], name))[:MAX_FACET_NAMES])
    kept: list[FacetCount] = []
    numbers = dict.fromkeys(names, 0)
    for count in ordered:
        if count.name_key in names and numbers[count.name_key] < MAX_FACET_VALUES:
            numbers[count.name_key] += 1
            kept.append(count)
    return kept


def build_facets(requested: Iterable[str], counts: Mapping[str, Iterable[FacetCount]]) -> Facets:
    """Build the requested facets from the counts, the most frequent values first."""
    kinds = {_kind_of(name) for name in requested}
    ordered = {
        kind: sorted(counts.get(kind, ()), key=lambda count: count.sort_key) for kind in kinds
    }
    return Facets(
        category=_values(ordered.get("category")),
        options=_values_by_name(ordered.get("options")),
        tag=_values(ordered.get("tag")),
        attributes=_values_by_name(ordered.get("attributes")),
    )


def _kind_of(requested: str) -> str:
    prefix, dot, _ = requested.partition(".")
    return f"{prefix}s" if dot else prefix


def _values(counts: Sequence[FacetCount] | None) -> tuple[FacetValue, ...] | None:
    if counts is None:
        return None
    return tuple(FacetValue(value=count.value, count=count.count) for count in counts)


def _values_by_name(
    counts: Sequence[FacetCount] | None,
) -> Mapping[str, tuple[FacetValue, ...]] | None:
    if counts is None:
        return None
    # the product with the lowest id comes last, so its spelling overwrites those of the others
    by_age = sorted(counts, key=lambda count: count.first_product_id, reverse=True)
    names = {count.name_key: count.name for count in by_age}
    values: dict[str, list[FacetValue]] = {}
    for count in counts:
        value = FacetValue(value=count.value, count=count.count)
        values.setdefault(names[count.name_key], []).append(value)
    return {name: tuple(found) for name, found in values.items()}


# greater than any sum of weights, so that the product whose SKU equals the query comes first
EXACT_SKU_SCORE: Final = 1000

MAX_TERMS: Final = 10
_MAX_CORRECTABLE_TERMS: Final = 4


@dataclass(frozen=True)
class SearchTerm:
    """A word of a query. It matches the words of products that begin with `word`.

    If no product has such a word, the SQL store may find `suggestions`. The term then matches only
    words that equal a suggestion. The memory store has no suggestions, so `weight_in` ignores them.
    """

    word: str
    suggestions: tuple[str, ...] = ()

    def weight_in(self, document: SearchDocument) -> int:
        """Return the highest weight of the words that match, or 0 if no word matches."""
        matches = (w for word, w in document.weights.items() if word.startswith(self.word))
        return max(matches, default=0)


@dataclass(frozen=True)
class SearchQuery:
    """A parsed query. Without terms it matches nothing. `sku` is the `sku_key` of the full text."""

    terms: tuple[SearchTerm, ...]
    sku: str

    @classmethod
    def parse(cls, q: str) -> "SearchQuery":
        """Parse the text of a query. Ignore words after the tenth."""
        words = list(dict.fromkeys(split_words(q)))[:MAX_TERMS]
        return cls(tuple(SearchTerm(word) for word in words), sku_key(q))

    @property
    def correctable_terms(self) -> list[str]:
        """Return the first four words that are long enough for suggestions.

        The number is limited, because each word needs a slow lookup.
        """
        words = (term.word for term in self.terms if len(term.word) >= MIN_CORRECTABLE_LENGTH)
        return list(islice(words, _MAX_CORRECTABLE_TERMS))

    def with_suggestions(self, suggestions: Mapping[str, Sequence[str]]) -> "SearchQuery":
        terms = tuple(
            SearchTerm(term.word, tuple(suggestions.get(term.word, ()))) for term in self.terms
        )
        return SearchQuery(terms, self.sku)

    def score(self, document: SearchDocument, sku: str) -> int:
        """Return the sum of the terms' weights, or 0 if a term does not match.

        Add EXACT_SKU_SCORE if the text of the query is this SKU.
        """
        weights = [term.weight_in(document) for term in self.terms]
        if not weights or not all(weights):
            return 0
        return sum(weights) + (EXACT_SKU_SCORE if sku_key(sku) == self.sku else 0)


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


# Spelling suggestions. Only the SQL store has them: the extension pg_trgm finds the candidates.

# the number of candidates per term: the words that share the most trigrams with it
MAX_CANDIDATES: Final = 50
MAX_EDIT_DISTANCE: Final = 2
_MIN_LENGTH_FOR_TWO_EDITS: Final = 6
_MAX_SUGGESTIONS: Final = 3


def spelling_suggestions(word: str, candidates: Iterable[str]) -> tuple[str, ...]:
    """Return at most three candidates, the nearest first.

    A candidate may differ from the word by one edit, or by two if the word has six or more letters.
    An edit inserts, deletes or replaces a letter, or swaps two adjacent letters.
    """
    allowed = 1 if len(word) < _MIN_LENGTH_FOR_TWO_EDITS else MAX_EDIT_DISTANCE
    if len(word) < MIN_CORRECTABLE_LENGTH:
        allowed = 0
    rated = sorted((edit_distance(word, candidate), candidate) for candidate in candidates)
    return tuple(candidate for count, candidate in rated if count <= allowed)[:_MAX_SUGGESTIONS]


def edit_distance(a: str, b: str) -> int:
    """Return the optimal string alignment distance.

    This is the Damerau-Levenshtein distance in which no substring is edited more than once.
    """
    previous_row: list[int] = []
    row = list(range(len(b) + 1))
    for i, letter_of_a in enumerate(a, 1):
        row_before_previous, previous_row, row = previous_row, row, [i]
        for j, letter_of_b in enumerate(b, 1):
            cost = min(
                previous_row[j] + 1, row[-1] + 1, previous_row[j - 1] + (letter_of_a != letter_of_b)
            )
            if i > 1 and j > 1 and letter_of_a == b[j - 2] and a[i - 2] == letter_of_b:
                cost = min(cost, row_before_previous[j - 2] + 1)
            row.append(cost)
    return row[-1]
