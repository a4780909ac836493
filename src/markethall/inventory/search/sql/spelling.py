"""Spelling suggestions. Only the SQL store has them: the extension pg_trgm finds the candidates."""

from collections.abc import Iterable
from typing import Final

from markethall.inventory.catalogue.domain.search_document import MIN_CORRECTABLE_LENGTH

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
    allowed = _max_edits(word)
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


def _max_edits(word: str) -> int:
    if len(word) < MIN_CORRECTABLE_LENGTH:
        return 0
    return 1 if len(word) < _MIN_LENGTH_FOR_TWO_EDITS else MAX_EDIT_DISTANCE
