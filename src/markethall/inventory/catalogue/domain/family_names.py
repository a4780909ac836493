"""Find the family that a text names, or plan the family to create for a new text."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self
from uuid import UUID

from markethall.inventory.catalogue.domain.families import Family
from markethall.inventory.catalogue.domain.slugs import (
    MAX_BASE_LENGTH,
    product_id_of_slug,
    slug_candidates,
)
from markethall.inventory.catalogue.domain.text_keys import label_key

_UUID_PATTERN: Final = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class FamilyName:
    """A name of a family: its label and `label_key`, and one of its slugs or None."""

    label: str
    key: str
    slug: str | None = None


@dataclass(frozen=True)
class FamilyLookup:
    """A path parameter that names a family, or a product without a family.

    `key` is the `label_key` of the text. `family_id` and `product_id` are ids in the text, or None.
    """

    text: str
    key: str
    family_id: UUID | None
    product_id: UUID | None

    @classmethod
    def by_id(cls, family_id: UUID) -> Self:
        return cls(str(family_id), str(family_id), family_id, None)

    @classmethod
    def parse(cls, text: str) -> Self:
        found = _parse_id(text)
        return cls(text, label_key(text), found, found or product_id_of_slug(text))


class FamilyNames:
    """The families to which the texts of a request may refer.

    A text is looked up by its `label_key`, first as a label, then as a slug or former slug.
    """

    def __init__(self, names: Iterable[FamilyName]) -> None:
        self._by_key: dict[str, str] = {}
        self._by_slug: dict[str, str] = {}
        # The labels of the families that `get_or_plan` has added and that do not exist in the store
        # yet, by `label_key`. The caller must create them.
        self.planned: dict[str, str] = {}
        for name in names:
            self._by_key[name.key] = name.label
            if name.slug is not None:
                self._by_slug[name.slug] = name.label

    def find(self, text: str) -> str | None:
        """Return the label of the family that the text names, or None."""
        key = label_key(text)
        return self._by_key.get(key) or self._by_slug.get(key)

    def get_or_plan(self, text: str) -> str:
        """Return the label of the family. If there is none, add the text to `planned`."""
        found = self.find(text)
        if found is None:
            key, found = label_key(text), text
            self._by_key[key] = self.planned[key] = text
        return found

    def claim_slug(self, slug: str, label: str) -> bool:
        """Assign the slug to the family. Return False if another family has or had the slug."""
        if product_id_of_slug(slug) is not None:
            return False
        return self._by_slug.setdefault(slug, label) == label

    def planned_labels(self, used: Collection[str | None]) -> Sequence[str]:
        """Return the planned labels among `used`, sorted by `label_key`."""
        return [label for _, label in sorted(self.planned.items()) if label in used]


def _parse_id(text: str) -> UUID | None:
    return UUID(text) if _UUID_PATTERN.fullmatch(text) else None


def candidates_of(labels: Iterable[str]) -> Sequence[str]:
    """Return the slugs that new families with these labels may get."""
    return sorted({slug for label in labels for slug in slug_candidates(label)})


def create_implicit_families(
    labels: Iterable[str],
    taken_slugs: Collection[str],
    now: datetime,
    new_id: Callable[[], UUID],
) -> Sequence[Family]:
    """Create the families that products name, each with its best slug that is not taken."""
    taken = set(taken_slugs)
    families = []
    for label in labels:
        family_id = new_id()
        slug = free_slug(label, family_id, taken)
        taken.add(slug)
        families.append(Family.create_implicit(family_id, label, slug, now))
    return families


def free_slug(label: str, family_id: UUID, taken_slugs: Collection[str]) -> str:
    """Return the best slug for the label that is not taken.

    If all candidates are taken, the slug ends with the random id of the family, which makes it
    unique.
    """
    candidates = slug_candidates(label)
    free = (slug for slug in candidates if slug not in taken_slugs)
    return next(free, f"{candidates[-1][:MAX_BASE_LENGTH]}-{family_id.hex}")
