"""What of a product can be found, and by which words: the same rules in memory and in SQL."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from markethall.inventory.domain.items import Item

# a word that is found counts as much as the best field that has it
NAME, SKU, TAGS, DESCRIPTION = 8, 4, 2, 1
WEIGHTS: Final = (NAME, SKU, TAGS, DESCRIPTION)
# who asks for a SKU gets that product first, whatever else has these words
EXACT_SKU: Final = 1000

MOST_TERMS: Final = 10
# a product's words fit into a tsvector (1 MB), however long its texts are
_MOST_WORDS: Final = 4000
# a longer word is two words, in a product and in a query alike
_WORDS: Final = re.compile(r"\w{1,50}")
_SHORTEST_GUESSED: Final = 3
_ONE_SLIP_BELOW: Final = 6
_MOST_GUESSES: Final = 3
_MOST_GUESSED: Final = 4
# so many words with the most trigrams in common are looked at letter by letter
CANDIDATES: Final = 50
MOST_SLIPS: Final = 2


@dataclass(frozen=True)
class SearchText:
    """The words of a product, each with the weight of the best field that has it."""

    weights: Mapping[str, int]

    @property
    def vocabulary(self) -> list[str]:
        """Words that people type from memory, and mistype; in order, for they are locked in it."""
        return sorted(
            word
            for word, weight in self.weights.items()
            if weight in {NAME, TAGS} and len(word) >= _SHORTEST_GUESSED
        )


@dataclass(frozen=True)
class Term:
    """One word of a query: what begins with it, or, of a mistyped one, what it may have been."""

    word: str
    instead: tuple[str, ...] = ()

    def weight_in(self, text: SearchText) -> int:
        """0 when it is not there."""
        if self.instead:
            return max(text.weights.get(word, 0) for word in self.instead)
        begins = (weight for word, weight in text.weights.items() if word.startswith(self.word))
        return max(begins, default=0)


@dataclass(frozen=True)
class Search:
    """A query as it is looked up. Without terms it finds nothing: it had no letter or digit."""

    terms: tuple[Term, ...]
    sku: str

    @classmethod
    def of(cls, q: str) -> "Search":
        """The first ten words count."""
        words = list(dict.fromkeys(words_of(q)))[:MOST_TERMS]
        return cls(tuple(Term(word) for word in words), q.strip().lower())

    @property
    def doubtful(self) -> list[str]:
        """Words that may be mistyped. To look for what each may have been is dear: not many."""
        words = (term.word for term in self.terms if len(term.word) >= _SHORTEST_GUESSED)
        return list(islice(words, _MOST_GUESSED))

    def instead(self, guesses: Mapping[str, Sequence[str]]) -> "Search":
        """With the guesses for what was mistyped."""
        terms = tuple(Term(term.word, tuple(guesses.get(term.word, ()))) for term in self.terms)
        return Search(terms, self.sku)

    def score(self, text: SearchText, sku: str) -> int:
        """0 when a term is missing."""
        weights = [term.weight_in(text) for term in self.terms]
        if not weights or not all(weights):
            return 0
        return sum(weights) + (EXACT_SKU if sku.lower() == self.sku else 0)


def words_of(text: str) -> list[str]:
    """Letters and digits without case and accents: "Crème Brûlée" is creme, brulee."""
    if text.isascii():
        return _WORDS.findall(text.lower())
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    bare = "".join(c for c in folded if not unicodedata.category(c).startswith("M"))
    return _WORDS.findall(bare)


def search_text(item: Item) -> SearchText:
    """What of a product can be found."""
    weights: dict[str, int] = {}
    # the best field comes last, and wins
    for weight, text in (
        (DESCRIPTION, _with(item.description, (t.description for t in item.translations.values()))),
        (TAGS, " ".join(item.tags)),
        (SKU, item.sku),
        (NAME, _with(item.name, (t.name for t in item.translations.values()))),
    ):
        weights.update(dict.fromkeys(words_of(text), weight))
    return SearchText(weights if len(weights) <= _MOST_WORDS else _best(weights))


def _with(text: str, translations: Iterable[str | None]) -> str:
    """All languages of a field count alike."""
    return " ".join([text, *(words for words in translations if words)])


def _best(weights: Mapping[str, int]) -> Mapping[str, int]:
    best = sorted(weights, key=lambda word: -weights[word])
    return {word: weights[word] for word in best[:_MOST_WORDS]}


# Words that were mistyped


def guesses(word: str, candidates: Iterable[str]) -> tuple[str, ...]:
    """At most three words that are one slip away, or two when the word is long, the nearest first.

    A slip is a letter too many, too few, wrong or changed with its neighbour.
    """
    allowed = _slips_allowed(word)
    rated = sorted((slips(word, candidate), candidate) for candidate in candidates)
    return tuple(candidate for count, candidate in rated if count <= allowed)[:_MOST_GUESSES]


def nearest(word: str, vocabulary: Iterable[str]) -> list[str]:
    """Those with the most trigrams in common: what pg_trgm's similarity() would sort first."""
    near = (other for other in vocabulary if abs(len(other) - len(word)) <= MOST_SLIPS)
    return sorted(near, key=lambda other: (-_similarity(word, other), other))[:CANDIDATES]


def slips(a: str, b: str) -> int:
    """How many slips lead from one word to the other (Damerau and Levenshtein, no letter twice)."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        earlier, before, row = before, row, [i]
        for j, right in enumerate(b, 1):
            cost = min(before[j] + 1, row[-1] + 1, before[j - 1] + (left != right))
            if i > 1 and j > 1 and left == b[j - 2] and a[i - 2] == right:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
    return row[-1]


def _slips_allowed(word: str) -> int:
    if len(word) < _SHORTEST_GUESSED:
        return 0
    return 1 if len(word) < _ONE_SLIP_BELOW else MOST_SLIPS


def _similarity(a: str, b: str) -> float:
    ours, theirs = _trigrams(a), _trigrams(b)
    shared = len(ours & theirs)
    return shared / (len(ours) + len(theirs) - shared)


def _trigrams(word: str) -> set[str]:
    return {
        padded[i : i + 3]
        for part in word.split("_")
        if part
        for padded in [f"  {part} "]
        for i in range(len(padded) - 2)
    } or {word}
