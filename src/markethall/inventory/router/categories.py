"""The category tree."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from markethall.inventory.contract import (
    Category,
    CategoryChange,
    CategoryCycle,
    CategoryInUse,
    CategoryNotFound,
    CategoryQuery,
    CategoryTaken,
    NewCategory,
)
from markethall.inventory.router.deps import (
    BODY,
    GUARDED,
    KEYED,
    VERSIONED,
    Anyone,
    CategoriesDep,
    KeysDep,
    Merchant,
    Seen,
    answer,
)
from markethall.shared.errors import Invalid, Unavailable
from markethall.shared.http import created, once, problems, ready
from markethall.shared.idempotency import Attempt
from markethall.shared.model import Id
from markethall.shared.pages import CursorInvalid, Page
from markethall.shared.versions import etag

router = APIRouter(tags=["inventory"])


@router.get(
    "/categories",
    response_model=Page[Category],
    summary="Categories",
    responses=problems(Invalid, CursorInvalid, Unavailable),
)
async def categories(
    request: Request,
    call: Anyone,
    query: Annotated[CategoryQuery, Query()],
    tree: CategoriesDep,
) -> Response:
    """By position, then by key. Products of a category are those of all that is below it too."""
    return answer(request, await tree.categories_body(call, query))


@router.get(
    "/categories/{category_id}",
    response_model=Category,
    summary="A category",
    responses=problems(CategoryNotFound, Invalid, Unavailable),
)
async def category(
    request: Request, call: Anyone, category_id: Id, tree: CategoriesDep
) -> Response:
    return answer(request, await tree.category_body(call, category_id))


@router.post(
    "/categories",
    status_code=201,
    response_model=Category,
    summary="Add a category",
    responses=problems(*GUARDED, *BODY, *KEYED, CategoryTaken, CategoryNotFound, CategoryCycle),
)
async def create(
    request: Request, call: Merchant, body: NewCategory, tree: CategoriesDep, keys: KeysDep
) -> Response:
    """One that a product has named before is there already, at the root level: change that."""

    async def effect(attempt: Attempt) -> Category:
        return await tree.create(call, body, attempt)

    present = created(lambda made: f"/categories/{made.category_id}")
    return await once(request, call, body, keys, effect, present)


@router.patch(
    "/categories/{category_id}",
    response_model=Category,
    summary="Change or move a category",
    responses=problems(*GUARDED, *BODY, *VERSIONED, CategoryNotFound, CategoryCycle),
)
async def change(
    call: Merchant, category_id: Id, seen: Seen, body: CategoryChange, tree: CategoriesDep
) -> Response:
    """JSON merge patch (RFC 7396). What is below it moves along."""
    changed = await tree.change(call, category_id, body, seen)
    return ready(changed, headers={"etag": etag(changed.version)})


@router.delete(
    "/categories/{category_id}",
    status_code=204,
    response_class=Response,
    summary="Remove a category",
    responses=problems(*GUARDED, *VERSIONED, CategoryNotFound, CategoryInUse),
)
async def remove(call: Merchant, category_id: Id, seen: Seen, tree: CategoriesDep) -> Response:
    """Only when nothing is in it or below it."""
    await tree.remove(call, category_id, seen)
    return Response(status_code=204)
