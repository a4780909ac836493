"""Find the category that a text names, or list the categories to create for a new path.

Names are compared by their `label_key`, which ignores extra spaces, letter case and the Unicode
normalization form.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, Self
from uuid import UUID

from markethall.inventory.catalogue.contract.categories import (
    CategoryChange,
    CategoryCycle,
    CategoryTaken,
    CategoryTranslation,
    CategoryTranslationView,
    CategoryView,
    NewCategory,
)
from markethall.inventory.catalogue.contract.fields import (
    MAX_CATEGORY_DEPTH,
    MAX_CATEGORY_LENGTH,
    MAX_LANGUAGES,
    PATH_SEPARATOR,
    join_path,
    split_path,
)
from markethall.inventory.catalogue.domain.products import invalid_field, merge_entries, set_fields
from markethall.inventory.catalogue.domain.text_keys import label_key, shorten_key


def category_key(category: str) -> str:
    """Return the normalized form of the category's key or path. It is unique among categories."""
    return _path_key([label_key(name) for name in split_path(category)])


def category_label(category: str) -> str:
    """Return the name of a category among its siblings: the last name of its path."""
    return split_path(category)[-1]


def label_keys(texts: Iterable[str]) -> Sequence[str]:
    """Return the `label_key` of each name in the texts.

    To find the categories that the texts name, it is enough to load the categories with one of
    these keys.
    """
    return sorted({label_key(name) for text in texts for name in split_path(text)})


def path_of_ancestors(ancestors: Sequence[str]) -> str:
    """Return the path of the first category in `ancestors`. Its parent is next, the root last."""
    return join_path(category_label(category) for category in reversed(ancestors))


@dataclass(frozen=True)
class CategoryNode:
    """The key of a category, and the key of its parent, which is None at the root."""

    category: str
    parent: str | None

    @cached_property
    def key(self) -> str:
        return category_key(self.category)

    @cached_property
    def label_key(self) -> str:
        return label_key(category_label(self.category))


class CategoryTree:
    """A part of the category tree: the categories that have one of the requested names.

    A text is looked up as the key of a category, then as a path, then, if it has no separator ">",
    as a name that only one category has.
    """

    def __init__(self, nodes: Iterable[CategoryNode]) -> None:
        self._by_key: dict[str, CategoryNode] = {}
        # the key is the parent and the `label_key`
        self._by_place: dict[tuple[str | None, str], CategoryNode] = {}
        self._by_label: dict[str, list[CategoryNode]] = {}
        # The categories that `get_or_plan` has added to this tree and that do not exist in the
        # store yet, by key. The caller must create them. A parent comes before its children.
        self.planned: dict[str, CategoryNode] = {}
        for node in nodes:
            self._insert(node)

    def find(self, text: str) -> Sequence[str]:
        """Return the key of the category that the text names.

        Return several keys if the name is ambiguous, and none if there is no such category.
        """
        keys = [label_key(name) for name in split_path(text)]
        if node := self._walk(keys)[-1]:
            return [node.category]
        found = self._by_label.get(keys[0], []) if len(keys) == 1 else []
        return [node.category for node in found]

    def get_or_plan(self, text: str) -> Sequence[str]:
        """Return the key of the category that the text names.

        If there is no such category, add it and its missing ancestors to `planned`. Return several
        keys if the name is ambiguous.
        """
        return self.find(text) or [self._plan(split_path(text))]

    def new_key(self, category: str, parent: str | None) -> str:
        """Return the key of a new category below the parent.

        The key is `category`, or the path of the category if another one has the key `category`.

        Raises CategoryTaken if the parent has a child of this name. Also raises it if both keys
        are in use or exceed the limits of a request.
        """
        label = category_label(category)
        candidates = [category]
        if parent is not None:
            path = join_path([parent, label])
            is_path = category_key(path) == category_key(category)
            candidates = [path] if is_path else [category, path]
        is_free = (parent, label_key(label)) not in self._by_place
        for candidate in candidates:
            is_valid = is_free and _is_within_limits(candidate)
            if is_valid and category_key(candidate) not in self._by_key:
                return candidate
        raise CategoryTaken(category=category)

    def planned_with_parents(self, categories: Iterable[str | None]) -> Sequence[CategoryNode]:
        """Return the given categories and their ancestors, but only those in `planned`.

        A parent comes before its children.
        """
        needed: set[str] = set()
        for category in categories:
            node = self.planned.get(category) if category is not None else None
            while node is not None and node.category not in needed:
                needed.add(node.category)
                node = self.planned.get(node.parent) if node.parent is not None else None
        return [node for node in self.planned.values() if node.category in needed]

    def _insert(self, node: CategoryNode) -> None:
        self._by_key[node.key] = node
        self._by_place[node.parent, node.label_key] = node
        self._by_label.setdefault(node.label_key, []).append(node)

    def _walk(self, keys: Sequence[str]) -> Sequence[CategoryNode | None]:
        """Return one entry per prefix of the path: for "A > B", the entries of "A" and "A > B".

        An entry is the category with this path, or None.
        """
        found: list[CategoryNode | None] = []
        for depth, key in enumerate(keys):
            above = found[-1] if found else None
            node = self._by_key.get(_path_key(keys[: depth + 1]))
            if node is None and (above is not None or depth == 0):
                node = self._by_place.get((above.category if above else None, key))
            found.append(node)
        return found

    def _plan(self, names: Sequence[str]) -> str:
        """Add the missing categories of the path to `planned`. Return the key of the last one."""
        found = self._walk([label_key(name) for name in names])
        # the names of the path, in the spelling of the categories that exist
        shown: list[str] = []
        above: CategoryNode | None = None
        # the number of names in the longest prefix that exists
        start = max((depth for depth, node in enumerate(found, 1) if node), default=0)
        for depth, name in enumerate(names):
            known = found[depth]
            shown.append(category_label(known.category) if known else name)
            if depth < start:
                above = known or above
            else:
                above = self._plan_node(shown, names[: depth + 1], above)
        return above.category if above else join_path(names)

    def _plan_node(
        self, shown: Sequence[str], names: Sequence[str], above: CategoryNode | None
    ) -> CategoryNode:
        path = join_path(shown)
        # the path in `shown` may be too long, because the spelling of an existing category may be
        # longer than the spelling in the request
        category = path if len(path) <= MAX_CATEGORY_LENGTH else join_path(names)
        node = CategoryNode(category, above.category if above else None)
        self.planned[category] = node
        self._insert(node)
        return node


def paths_by_category(nodes: Sequence[CategoryNode]) -> Mapping[str, str]:
    """Map each category to a text that names it: its path or its key.

    It is the key if the path exceeds the limits of a request, or names another category.
    """
    tree = CategoryTree(nodes)
    parents = {node.category: node.parent for node in nodes}
    paths = {category: path_of_ancestors(_ancestors(category, parents)) for category in parents}
    return {
        category: path if _is_within_limits(path) and tree.find(path) == [category] else category
        for category, path in paths.items()
    }


def _ancestors(category: str, parents: Mapping[str, str | None]) -> Sequence[str]:
    found = [category]
    while (parent := parents.get(found[-1])) is not None:
        found.append(parent)
    return found


def _is_within_limits(path: str) -> bool:
    """Tell whether a request may name a category by this path."""
    return len(path) <= MAX_CATEGORY_LENGTH and len(split_path(path)) <= MAX_CATEGORY_DEPTH


def _path_key(keys: Sequence[str]) -> str:
    return shorten_key(PATH_SEPARATOR.join(keys))


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
        is_changed = bool(set_fields(self, patched))
        self.version += is_changed
        return is_changed

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
        raise invalid_field("/category", "not_below_parent", message)


def _merge_translations(
    current: Mapping[str, CategoryTranslationView], patch: Mapping[str, CategoryTranslation | None]
) -> Mapping[str, CategoryTranslationView]:
    stored = {
        language: None if texts is None else CategoryTranslationView(name=texts.name)
        for language, texts in patch.items()
    }
    return merge_entries("translations", current, stored, MAX_LANGUAGES)
