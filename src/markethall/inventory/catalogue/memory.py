from abc import ABC, abstractmethod
from collections.abc import Collection, Container, Iterable, Sequence
from dataclasses import fields
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from markethall.inventory.catalogue.contract.categories import (
    CategoryInUse,
    CategoryNotFound,
    CategoryQuery,
    CategoryTaken,
    CategoryView,
)
from markethall.inventory.catalogue.contract.families import MAX_FAMILY_PRODUCTS, OptionValuesView
from markethall.inventory.catalogue.contract.fields import ProductStatus
from markethall.inventory.catalogue.contract.products import MAX_OPTION_VALUES, PriceRange, SkuTaken
from markethall.inventory.catalogue.domain.categories import Category, CategoryNode, category_key
from markethall.inventory.catalogue.domain.families import (
    Family,
    FamilyLookup,
    FamilyName,
    FamilyRecord,
    FamilySummary,
    FirstMember,
)
from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.catalogue.domain.search_document import (
    SearchDocument,
    build_search_document,
)
from markethall.inventory.catalogue.domain.text_keys import label_key, sku_key
from markethall.inventory.catalogue.ports import FamilyPageJson, ProductJson
from markethall.shared.composition.memory import ContextTables, MemoryUnitOfWork
from markethall.shared.persistence.memory import Table

K = TypeVar("K")
V = TypeVar("V")


def find_rows(table: Table[K, V], keys: Iterable[K]) -> list[V]:
    """Return the rows with these keys, in the order of the keys. Skip keys without a row."""
    return [row for key in keys if (row := table.get(key)) is not None]


class CatalogueTables(ContextTables):
    def __init__(self) -> None:
        super().__init__()
        self.products: Table[UUID, Product] = Table()
        self.product_ids_by_sku: Table[str, UUID] = Table()
        self.categories: Table[str, Category] = Table()
        # the key is the label of the family
        self.families: Table[str, Family] = Table()
        # all slugs that families have or had; value: the family id
        self.family_slugs: Table[str, UUID] = Table()
        self.search_documents: Table[UUID, SearchDocument] = Table()


class MemoryCategoryStore(MemoryUnitOfWork):
    _tables: CatalogueTables

    async def list_categories(
        self, query: CategoryQuery, after: tuple[int, str] | None
    ) -> Sequence[CategoryView]:
        parent_key = category_key(query.parent) if query.parent else None

        def matches(node: Category) -> bool:
            key = category_key(node.parent) if node.parent is not None else None
            is_in_parent = query.parent is None or key == parent_key
            return is_in_parent and (after is None or _sort_key(node) > after)

        nodes = sorted(self._tables.categories.where(matches), key=_sort_key)
        return [self._to_view(node) for node in nodes[: query.limit + 1]]

    async def get_category_view(self, category_id: UUID) -> CategoryView | None:
        node = await self.get_category_for_update(category_id)
        return self._to_view(node) if node else None

    async def add_category(self, node: Category) -> bool:
        if self._tables.categories.where(lambda other: _is_same(node, other)):
            return False
        await self.save_category(node)
        return True

    async def list_category_nodes(self, label_keys: Collection[str]) -> Sequence[CategoryNode]:
        nodes = await self.list_all_category_nodes()
        return [node for node in nodes if node.label_key in label_keys]

    async def list_all_category_nodes(self) -> Sequence[CategoryNode]:
        return [node.node for node in self._tables.categories.where(lambda _: True)]

    # transactions in memory run one at a time, so no row needs a lock
    list_category_nodes_for_share = list_category_nodes

    async def lock_category_tree(self) -> None:
        """Do nothing, because transactions in memory run one at a time."""

    async def get_category_for_update(self, category_id: UUID) -> Category | None:
        found = self._tables.categories.where(lambda node: node.category_id == category_id)
        return found[0] if found else None

    get_category_for_deletion = get_category_for_update

    async def get_ancestors(self, category: str) -> Sequence[str]:
        keys: list[str] = []
        node = self._tables.categories.get(category)
        while node is not None:
            keys.append(node.category)
            node = self._tables.categories.get(node.parent) if node.parent else None
        return keys

    async def save_category(self, node: Category) -> None:
        if node.parent is not None and node.parent not in self._tables.categories:
            raise CategoryNotFound(category=node.parent)
        if self._tables.categories.where(
            lambda other: other.category_id != node.category_id and _has_same_place(node, other)
        ):
            raise CategoryTaken(category=node.category)
        self._tables.categories.put(node.category, node)

    async def remove_category(self, node: Category) -> None:
        products = self._tables.products.where(lambda product: product.category == node.category)
        families = self._tables.families.where(lambda family: family.category == node.category)
        if products or families or self._children({node.category}):
            raise CategoryInUse(category=node.category)
        self._tables.categories.remove(node.category)

    def _check_category(self, category: str | None) -> None:
        """Raises CategoryNotFound, like the foreign key of the product table in Postgres."""
        if category is not None and category not in self._tables.categories:
            raise CategoryNotFound(category=category)

    def _subtree(self, keys: Collection[str]) -> set[str]:
        """Return the categories with these keys and all categories below them."""
        found = self._tables.categories.where(lambda node: node.key in keys)
        return self._with_descendants({node.category for node in found})

    def _with_descendants(self, level: set[str]) -> set[str]:
        subtree: set[str] = set()
        while level:
            subtree |= level
            level = self._children(level)
        return subtree

    def _children(self, categories: Container[object]) -> set[str]:
        found = self._tables.categories.where(lambda node: node.parent in categories)
        return {node.category for node in found}

    def _to_view(self, node: Category) -> CategoryView:
        subtree = self._with_descendants({node.category})
        products = self._tables.products.where(
            lambda product: product.category in subtree and product.is_active
        )
        return node.to_view(len(products))


class MemoryFamilyStore(MemoryCategoryStore):
    async def list_family_names(self, keys: Collection[str]) -> Sequence[FamilyName]:
        by_label = self._tables.families.where(lambda family: family.key in keys)
        by_slug = [
            (slug, self._family_by_id(family_id))
            for slug in keys
            if (family_id := self._tables.family_slugs.get(slug))
        ]
        return [
            *(FamilyName(family.label, family.key) for family in by_label),
            *(FamilyName(family.label, family.key, slug) for slug, family in by_slug if family),
        ]

    async def list_taken_slugs(self, slugs: Collection[str]) -> Sequence[str]:
        return [slug for slug in slugs if slug in self._tables.family_slugs]

    async def lock_family_names(self) -> None:
        """Do nothing, because transactions in memory run one at a time."""

    async def add_families(self, families: Sequence[Family]) -> None:
        for family in families:
            await self.add_family(family)

    async def add_family(self, family: Family) -> bool:
        self._check_category(family.category)
        if self._family_by_id(family.family_id) or self._tables.families.where(
            lambda other: other.key == family.key
        ):
            return False
        self._tables.families.put(family.label, family)
        await self.add_slug(family.slug, family.family_id)
        return True

    async def get_family_for_update(self, name: FamilyLookup) -> Family | None:
        family_ids = (name.family_id, self._tables.family_slugs.get(name.key))
        for family_id in family_ids:
            if family_id and (family := self._family_by_id(family_id)):
                return family
        by_label = self._tables.families.where(lambda family: family.key == name.key)
        return by_label[0] if by_label else None

    async def save_family(self, family: Family) -> None:
        self._check_category(family.category)
        self._tables.families.put(family.label, family)

    async def add_slug(self, slug: str, family_id: UUID) -> None:
        self._tables.family_slugs.add(slug, family_id)

    def _label_of_family(self, text: str) -> str:
        """Return the label of the family that the text names, or an empty text."""
        key = label_key(text)
        by_label = self._tables.families.where(lambda family: family.key == key)
        if by_label:
            return by_label[0].label
        family_id = self._tables.family_slugs.get(key)
        family = self._family_by_id(family_id) if family_id else None
        return family.label if family else ""

    def _family_by_id(self, family_id: UUID) -> Family | None:
        found = self._tables.families.where(lambda family: family.family_id == family_id)
        return found[0] if found else None


class MemoryProductStore(MemoryFamilyStore, ABC):
    """The store of products. The store of `stock` implements the abstract methods."""

    async def get_product_json(self, product_id: UUID, now: datetime) -> ProductJson | None:
        product = self._tables.products.get(product_id)
        return self._product_json(product, now) if product else None

    async def get_product_json_by_sku(self, sku: str, now: datetime) -> ProductJson | None:
        product_id = self._tables.product_ids_by_sku.get(sku_key(sku))
        return await self.get_product_json(product_id, now) if product_id else None

    async def get_family_page(self, name: FamilyLookup, now: datetime) -> FamilyPageJson | None:
        family = await self.get_family_for_update(name)
        product = self._tables.products.get(name.product_id) if name.product_id else None
        if family is None and product is not None and product.is_active:
            if product.family is None:
                return self._family_page(None, [product], now)
            family = self._tables.families.get(product.family)
        return self._family_page(family, self._active_members(family), now) if family else None

    def _is_archived_family(self, label: str | None) -> bool:
        family = self._tables.families.get(label) if label is not None else None
        return family is not None and not family.is_active

    def _family_of_product(self, product: Product, now: datetime) -> FamilyRecord:
        """Return the family of an active product, or the product as a family."""
        family = self._tables.families.get(product.family) if product.family is not None else None
        members = self._active_members(family) if family else [product]
        return FamilyRecord(family, self._summarize_family(members, now))

    def _active_members(self, family: Family) -> list[Product]:
        """Return the active products of the family, the oldest first."""
        members = self._tables.products.where(
            lambda product: product.family == family.label and product.is_active
        )
        return sorted(members, key=lambda product: (product.created_at, product.product_id))

    def _family_page(
        self, family: Family | None, members: list[Product], now: datetime
    ) -> FamilyPageJson:
        shown = members[:MAX_FAMILY_PRODUCTS]
        return FamilyPageJson(
            FamilyRecord(family, self._summarize_family(members, now)),
            ",".join(self._product_json(product, now).json for product in shown),
        )

    def _summarize_family(self, members: Sequence[Product], now: datetime) -> FamilySummary:
        """Summarize the active products of a family, the oldest first."""
        if not members:
            return FamilySummary()
        names = sorted(product.name for product in members)
        return FamilySummary(
            product_count=len(members),
            available=sum(self._available(product.product_id, now) for product in members),
            first=_first_member(members[0]),
            name_limits=(names[0], names[-1]),
            images=next((product.images for product in members if product.images), ()),
            options=_option_values(members),
            price_range=_price_range(members, now),
        )

    async def list_products_of_family_for_update(self, label: str) -> Sequence[Product]:
        found = self._tables.products.where(
            lambda product: product.family == label and product.status != ProductStatus.ARCHIVED
        )
        return sorted(found, key=lambda product: product.product_id)

    async def count_products(self) -> int:
        return len(self._tables.products.where(lambda product: product.is_active))

    async def add_product(self, product: Product) -> bool:
        if sku_key(product.sku) in self._tables.product_ids_by_sku or not self._tables.products.add(
            product.product_id, product
        ):
            return False
        self._check_category(product.category)
        self._tables.product_ids_by_sku.put(sku_key(product.sku), product.product_id)
        self._index(product)
        return True

    async def get_product_for_update(self, product_id: UUID) -> Product | None:
        return self._tables.products.get(product_id)

    async def save_product(self, product: Product) -> None:
        stored = self._tables.products.get(product.product_id)
        if stored is not None and sku_key(stored.sku) != sku_key(product.sku):
            if not self._tables.product_ids_by_sku.add(sku_key(product.sku), product.product_id):
                raise SkuTaken(sku=product.sku)
            self._tables.product_ids_by_sku.remove(sku_key(stored.sku))
        self._tables.products.put(product.product_id, product)
        limit = product.effective_backorder_limit
        if stored is None or stored.effective_backorder_limit != limit:
            self._apply_backorder_limit(product)
        self._check_category(product.category)
        self._index(product)

    @abstractmethod
    def _apply_backorder_limit(self, product: Product) -> None:
        """Copy the product's backorder limit to its stock row in the main warehouse."""

    @abstractmethod
    def _available(self, product_id: UUID, now: datetime) -> int:
        """Return the number of units that can be bought at this time."""

    def _index(self, product: Product) -> None:
        self._tables.search_documents.put(product.product_id, build_search_document(product))

    def _product_json(self, product: Product, now: datetime) -> ProductJson:
        text = product.to_view(self._available(product.product_id, now), now).model_dump_json()
        return ProductJson(product.version, product.is_active, text)


def _sort_key(node: Category) -> tuple[int, str]:
    return node.position, node.category


def _is_same(node: Category, other: Category) -> bool:
    return (
        node.category_id == other.category_id
        or node.key == other.key
        or _has_same_place(node, other)
    )


def _has_same_place(node: Category, other: Category) -> bool:
    return node.parent == other.parent and node.node.label_key == other.node.label_key


def _first_member(product: Product) -> FirstMember:
    return FirstMember(
        **{field.name: getattr(product, field.name) for field in fields(FirstMember)}
    )


def _option_values(members: Iterable[Product]) -> Sequence[OptionValuesView]:
    found: dict[str, tuple[str, dict[str, str]]] = {}
    for product in members:
        for name, value in sorted(product.options.items(), key=lambda pair: label_key(pair[1])):
            _, values = found.setdefault(label_key(name), (name, {}))
            values.setdefault(label_key(value), value)
    return [
        OptionValuesView(name=name, values=tuple(values.values())[:MAX_OPTION_VALUES])
        for _, (name, values) in sorted(found.items())
    ]


def _price_range(members: Iterable[Product], now: datetime) -> PriceRange:
    """Return the range of the prices in the currency that most products have."""
    amounts: dict[str, list[int]] = {}
    for product in members:
        price, _ = product.price_at(now)
        amounts.setdefault(price.currency, []).append(price.amount)
    currency, most = min(amounts.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return PriceRange(currency=currency, lowest=min(most), highest=max(most))
