"""Lists of products: filters, full-text search and facets."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, Literal, Protocol

from pydantic import AfterValidator, Field, PlainSerializer

from markethall.inventory.catalogue.contract.fields import Label, ProductStatus, Tag
from markethall.inventory.catalogue.contract.products import ProductView, RenderedResponse
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import MAX_AMOUNT, Dto, Text
from markethall.shared.kernel.pagination import Page, PageQuery

# the values of one facet that are counted; the rest are the rarer ones
MAX_FACET_VALUES: Final = 100

_FACET_NAME_PATTERN: Final = "(?:category|options|tag)"
FacetNames = Annotated[
    Text,
    Field(
        max_length=50,
        pattern=f"^{_FACET_NAME_PATTERN}(?:,{_FACET_NAME_PATTERN})*$",
        json_schema_extra={"pattern": f"^{_FACET_NAME_PATTERN}(?:,{_FACET_NAME_PATTERN})*$"},
        examples=["category,options,tag"],
    ),
]


class ProductQuery(PageQuery):
    """Filters and order of the product list. Prices are in minor units.

    `q`: each of its words (the first ten count) begins a word of the name, the SKU, a tag or the
    description; case and accents do not count. Without `sort` the best match comes first, or
    without `q` the newest product; `relevance` without `q` is the same.
    """

    category: Label | None = None
    family: Label | None = None
    tag: Tag | None = None
    min_price: Annotated[int, Field(ge=0, le=MAX_AMOUNT)] | None = None
    max_price: Annotated[int, Field(ge=0, le=MAX_AMOUNT)] | None = None
    in_stock: bool | None = None
    q: Annotated[Text, Field(min_length=1, max_length=100, examples=["green tea"])] | None = None
    status: ProductStatus = ProductStatus.ACTIVE
    sort: Literal["relevance", "name", "price", "-price", "-created_at"] | None = None
    facets: FacetNames | None = None

    @property
    def effective_sort(self) -> str:
        """The sort that is meant."""
        if self.sort in {None, "relevance"}:
            return "-created_at" if self.q is None else "relevance"
        return str(self.sort)

    @property
    def requested_facets(self) -> frozenset[str]:
        """The facets that are asked for."""
        return frozenset(self.facets.split(",")) if self.facets else frozenset()


class FacetValue(Dto):
    """One value, and how many of the products that match have it."""

    value: str
    count: int


FrozenFacets = Annotated[
    Mapping[str, tuple[FacetValue, ...]],
    AfterValidator(lambda facets: MappingProxyType(dict(facets))),
    PlainSerializer(dict, return_type=dict[str, tuple[FacetValue, ...]]),
]


class Facets(Dto):
    """Counts over all that matches, not over the page; null when not asked for.

    The most frequent values first, at most a hundred of each facet (of all options together).
    """

    category: tuple[FacetValue, ...] | None = None
    options: FrozenFacets | None = None
    tag: tuple[FacetValue, ...] | None = None


class ProductPage(Page[ProductView]):
    """A page of products; `facets` of all that match, when requested."""

    facets: Facets | None = None


class ProductSearch(Protocol):
    async def list_products(self, ctx: CallContext, query: ProductQuery) -> ProductPage:
        """Raises CursorInvalid; for another status than active Unauthenticated, Forbidden."""

    async def render_product_page(self, ctx: CallContext, query: ProductQuery) -> RenderedResponse:
        """Render `list_products` as JSON, at most one second old. Raises as `list_products`."""
