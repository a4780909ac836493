"""The family, its changes by merge patch, and its view with the products that it has."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile
from types import MappingProxyType
from typing import Any, Final, Self
from uuid import UUID

from markethall.inventory.catalogue.contract.families import (
    FamilyChange,
    FamilyStatus,
    FamilyView,
    NewFamily,
    OptionValuesView,
    Seo,
    SeoView,
)
from markethall.inventory.catalogue.contract.fields import MAX_LANGUAGES
from markethall.inventory.catalogue.contract.products import PriceRange, TranslationView
from markethall.inventory.catalogue.domain.products import (
    merge_entries,
    set_fields,
    sort_like_jsonb,
    to_stored_value,
)
from markethall.inventory.catalogue.domain.text_keys import (
    MAX_BASE_LENGTH,
    label_key,
    product_id_of_slug,
    product_slug,
    slug_candidates,
)
from markethall.shared.kernel.metadata import MAX_METADATA_ENTRIES

_EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})
_EMPTY_VALUES: Final[Mapping[str, Any]] = MappingProxyType(
    {"description": "", "images": (), "metadata": _EMPTY, "translations": _EMPTY}
)
_MAX_ENTRIES: Final[Mapping[str, int]] = MappingProxyType(
    {"metadata": MAX_METADATA_ENTRIES, "translations": MAX_LANGUAGES}
)


@dataclass
class Family:
    """A family. Its collections are never mutated, because copies of the family share them.

    `label` is the value of `family` in its products. The label never changes. If `name` is None,
    the name comes from the products.
    """

    family_id: UUID
    label: str
    slug: str
    name: str | None
    description: str
    category: str | None
    images: tuple[str, ...]
    seo: SeoView
    metadata: Mapping[str, str]
    translations: Mapping[str, TranslationView]
    status: FamilyStatus
    version: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def new(cls, family_id: UUID, command: NewFamily, slug: str, now: datetime) -> Self:
        return cls(
            family_id=family_id,
            label=command.label or command.name,
            slug=slug,
            name=command.name,
            description=command.description,
            category=command.category,
            images=to_stored_value(command.images),
            seo=SeoView(title=command.seo.title, description=command.seo.description),
            metadata=sort_like_jsonb(command.metadata),
            translations=to_stored_value(command.translations),
            status=command.status,
            version=1,
            created_at=now,
            updated_at=now,
        )

    @classmethod
    def create_implicit(cls, family_id: UUID, label: str, slug: str, now: datetime) -> Self:
        """Create the family that a product names. Its texts come from its products."""
        command = NewFamily.model_construct(label=label, name=label)
        family = cls.new(family_id, command, slug, now)
        family.name = None
        return family

    @property
    def key(self) -> str:
        return label_key(self.label)

    @property
    def is_active(self) -> bool:
        return self.status == FamilyStatus.ACTIVE

    def change(self, command: FamilyChange, now: datetime) -> bool:
        """Apply a merge patch. Return False when nothing changes. Raises ValidationFailed."""
        patched = {name: self._patched_value(command, name) for name in command.model_fields_set}
        return self._mark_changed(now) if set_fields(self, patched) else False

    def set_fields(self, values: Mapping[str, Any], now: datetime) -> Sequence[str]:
        """Set fields to values in their stored form. Return the names of those that change."""
        changed = set_fields(self, values)
        if changed:
            self._mark_changed(now)
        return changed

    def archive(self, now: datetime) -> bool:
        """Archive the family. Return False when it is archived already."""
        if self.status == FamilyStatus.ARCHIVED:
            return False
        self.status = FamilyStatus.ARCHIVED
        return self._mark_changed(now)

    def _patched_value(self, command: FamilyChange, name: str) -> Any:
        value = getattr(command, name)
        if name == "seo":
            return _merge_seo(self.seo, value)
        if value is None:
            return _EMPTY_VALUES.get(name)
        if name in _MAX_ENTRIES:
            return merge_entries(name, getattr(self, name), value, _MAX_ENTRIES[name])
        return to_stored_value(value)

    def _mark_changed(self, now: datetime) -> bool:
        self.version += 1
        self.updated_at = now
        return True


def _merge_seo(current: SeoView, patch: Seo | None) -> SeoView:
    if patch is None:
        return SeoView(title=None, description=None)
    return current.model_copy(update=patch.model_dump(exclude_unset=True))


@dataclass(frozen=True)
class FirstMember:
    """The oldest active product of a family. Its texts are used where the family has none."""

    product_id: UUID
    sku: str
    name: str
    description: str
    category: str | None
    translations: Mapping[str, TranslationView]
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class FamilySummary:
    """A summary of the active products of a family. Without them, all fields are empty.

    `name_limits` are the first and the last name of the products, sorted by code point. `images`
    are the images of the oldest product with images.
    """

    product_count: int = 0
    available: int = 0
    first: FirstMember | None = None
    name_limits: tuple[str, str] = ("", "")
    images: tuple[str, ...] = ()
    options: Sequence[OptionValuesView] = ()
    price_range: PriceRange | None = None


@dataclass(frozen=True)
class FamilyRecord:
    """A family with its summary. `family` is None for a product without a family."""

    family: Family | None
    summary: FamilySummary = field(default_factory=FamilySummary)

    @property
    def is_public(self) -> bool:
        """Tell whether customers see the family."""
        return self.summary.product_count > 0 and (self.family is None or self.family.is_active)

    def to_view(self) -> FamilyView:
        """Return the view. Raises ValueError if there is neither a family nor a product."""
        fields = dict(vars(self.family)) if self.family else _product_fields(self.summary.first)
        return FamilyView(**_with_product_texts(fields, self.summary))


def _product_fields(product: FirstMember | None) -> dict[str, Any]:
    if product is None:
        raise ValueError("a family without a row has a product")
    return {
        **vars(product),
        "family_id": product.product_id,
        "slug": product_slug(product.sku, product.product_id),
        "label": None,
        "images": (),
        "seo": SeoView(title=None, description=None),
        "metadata": _EMPTY,
        "status": FamilyStatus.ACTIVE,
    }


def _with_product_texts(fields: dict[str, Any], summary: FamilySummary) -> dict[str, Any]:
    first = summary.first
    fallback: Mapping[str, Callable[[], Any]] = {
        "name": lambda: common_name(summary) or fields["label"],
        "description": lambda: first.description if first else "",
        "category": lambda: first.category if first else None,
        "images": lambda: summary.images,
    }
    return {
        **vars(summary),
        **fields,
        **{name: fields[name] or value() for name, value in fallback.items()},
    }


def common_name(summary: FamilySummary) -> str:
    """Return the first words that the names of all products share.

    For "Sencha, 50 g" and "Sencha, 100 g" the result is "Sencha". Without a common word, return the
    name of the oldest product. The common prefix of the first and the last name in sorted order is
    the common prefix of all names.
    """
    lowest, highest = summary.name_limits
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(lowest, highest, strict=False))
    prefix = "".join(character for character, _ in pairs)
    if lowest != highest:
        # drop a word of which the prefix has only a part
        ends = [end for end, character in enumerate(prefix) if not character.isalnum()]
        rest = lowest[len(prefix) :], highest[len(prefix) :]
        is_cut = any(text[:1].isalnum() for text in rest)
        prefix = prefix[: ends[-1] if ends else 0] if is_cut else prefix
    name = prefix.rstrip(" ,;:/|(-\u2013\u2014")
    return name or (summary.first.name if summary.first else "")


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
        found = UUID(text) if _UUID_PATTERN.fullmatch(text) else None
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


def candidates_of(labels: Iterable[str]) -> Sequence[str]:
    """Return the slugs that new families with these labels may get."""
    return sorted({slug for label in labels for slug in slug_candidates(label)})


def create_implicit_families(
    labels: Iterable[str], taken_slugs: Collection[str], now: datetime, new_id: Callable[[], UUID]
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
