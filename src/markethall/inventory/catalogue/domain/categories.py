from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Self
from uuid import UUID

from markethall.inventory.catalogue.contract.categories import (
    CategoryChange,
    CategoryCycle,
    CategoryTranslation,
    CategoryTranslationView,
    CategoryView,
    NewCategory,
)
from markethall.inventory.catalogue.contract.fields import MAX_LANGUAGES, join_path, split_path
from markethall.inventory.catalogue.domain.category_tree import (
    CategoryNode,
    category_key,
    category_label,
)
from markethall.inventory.catalogue.domain.products import sort_like_jsonb
from markethall.shared.kernel.errors import ValidationFailed

_NO_TRANSLATIONS: Final[Mapping[str, CategoryTranslationView]] = MappingProxyType({})


@dataclass
class Category:
    """A category. `translations` is never mutated, because copies of the category share it."""

    category_id: UUID
    category: str
    name: str
    parent: str | None
    position: int
    translations: Mapping[str, CategoryTranslationView]
    version: int

    @classmethod
    def new(cls, category_id: UUID, command: NewCategory, node: CategoryNode) -> Self:
        """Create a category. `node` has its key and its parent."""
        return cls(
            category_id=category_id,
            category=node.category,
            name=command.name or category_label(command.category),
            parent=node.parent,
            position=command.position,
            translations=_merge_translations({}, command.translations),
            version=1,
        )

    @classmethod
    def create_implicit(cls, category_id: UUID, node: CategoryNode) -> Self:
        """Create a missing category of the path that a product names."""
        name = category_label(node.category)
        return cls(category_id, node.category, name, node.parent, 0, _NO_TRANSLATIONS, 1)

    @property
    def key(self) -> str:
        return category_key(self.category)

    @property
    def node(self) -> CategoryNode:
        return CategoryNode(self.category, self.parent)

    def change(self, command: CategoryChange, ancestors: Sequence[str]) -> bool:
        """Apply a merge patch. `ancestors` are the new parent and all categories above it.

        Return False when nothing changes. Raises CategoryCycle (this category is one of the
        ancestors), ValidationFailed (there are too many translations).
        """
        if self.category in ancestors:
            raise CategoryCycle(category=self.category, parent=command.parent)
        patched = {name: self._patched_value(command, name) for name in command.model_fields_set}
        changes = {name: value for name, value in patched.items() if value != getattr(self, name)}
        for name, value in changes.items():
            setattr(self, name, value)
        self.version += bool(changes)
        return bool(changes)

    def to_view(self, product_count: int) -> CategoryView:
        return CategoryView(**vars(self), product_count=product_count)

    def _patched_value(self, command: CategoryChange, name: str) -> Any:
        value = getattr(command, name)
        if name != "translations":
            return value
        return _merge_translations(self.translations, value) if value is not None else {}


def check_parent(command: NewCategory) -> None:
    """Check the parent of a new category.

    Raises CategoryCycle (the parent is the new category itself), ValidationFailed (`category` is a
    path that is not below the parent).
    """
    if command.parent is None:
        return
    parent_key = category_key(command.parent)
    if parent_key == category_key(command.category):
        raise CategoryCycle(category=command.category, parent=command.parent)
    *above, _ = split_path(command.category)
    if above and category_key(join_path(above)) != parent_key:
        message = "must be a name, or a path below the parent"
        raise ValidationFailed(
            errors=[{"field": "/category", "code": "not_below_parent", "message": message}]
        )


def _merge_translations(
    current: Mapping[str, CategoryTranslationView], patch: Mapping[str, CategoryTranslation | None]
) -> Mapping[str, CategoryTranslationView]:
    combined = {
        **current,
        **{language: _to_stored_translation(texts) for language, texts in patch.items()},
    }
    merged = sort_like_jsonb(
        {language: names for language, names in combined.items() if names is not None}
    )
    if len(merged) > MAX_LANGUAGES:
        message = f"should have at most {MAX_LANGUAGES} after the change"
        raise ValidationFailed(
            errors=[{"field": "/translations", "code": "too_long", "message": message}]
        )
    return merged


def _to_stored_translation(texts: CategoryTranslation | None) -> CategoryTranslationView | None:
    return None if texts is None else CategoryTranslationView(name=texts.name)
