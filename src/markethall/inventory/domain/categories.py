"""Places in the category tree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Self
from uuid import UUID

from markethall.inventory.contract import (
    MAX_LANGUAGES,
    Category,
    CategoryChange,
    CategoryCycle,
    CategoryNames,
    CategoryTranslation,
    NewCategory,
)
from markethall.inventory.domain.items import in_order
from markethall.shared.errors import Invalid

_NO_NAMES: Final[Mapping[str, CategoryNames]] = MappingProxyType({})


@dataclass
class Branch:
    """A category as it is kept. Its values are replaced, never changed in place."""

    category_id: UUID
    category: str
    name: str
    parent: str | None
    position: int
    translations: Mapping[str, CategoryNames]
    version: int

    @classmethod
    def new(cls, category_id: UUID, command: NewCategory) -> Self:
        """Raises CategoryCycle."""
        if command.parent == command.category:
            raise CategoryCycle(category=command.category, parent=command.parent)
        return cls(
            category_id=category_id,
            category=command.category,
            name=command.name or command.category,
            parent=command.parent,
            position=command.position,
            translations=_merged({}, command.translations),
            version=1,
        )

    @classmethod
    def named(cls, category_id: UUID, category: str) -> Self:
        """As a product makes it that is the first to name it."""
        return cls(category_id, category, category, None, 0, _NO_NAMES, 1)

    def change(self, command: CategoryChange, above: Sequence[str]) -> bool:
        """`above`: the new parent, and all that it is below. False when everything is so already.

        Raises CategoryCycle, Invalid.
        """
        if self.category in above:
            raise CategoryCycle(category=self.category, parent=command.parent)
        wanted = {name: self._wanted(command, name) for name in command.model_fields_set}
        new = {name: value for name, value in wanted.items() if value != getattr(self, name)}
        for name, value in new.items():
            setattr(self, name, value)
        self.version += bool(new)
        return bool(new)

    def seen_with(self, product_count: int) -> Category:
        return Category(**vars(self), product_count=product_count)

    def _wanted(self, command: CategoryChange, name: str) -> Any:
        value = getattr(command, name)
        if name != "translations":
            return value
        return _merged(self.translations, value) if value is not None else {}


def _merged(
    now: Mapping[str, CategoryNames], patch: Mapping[str, CategoryTranslation | None]
) -> Mapping[str, CategoryNames]:
    both = {**now, **{language: _kept(texts) for language, texts in patch.items()}}
    merged = in_order({language: names for language, names in both.items() if names is not None})
    if len(merged) > MAX_LANGUAGES:
        message = f"should have at most {MAX_LANGUAGES} after the change"
        raise Invalid(errors=[{"field": "/translations", "code": "too_long", "message": message}])
    return merged


def _kept(texts: CategoryTranslation | None) -> CategoryNames | None:
    return None if texts is None else CategoryNames(name=texts.name)
