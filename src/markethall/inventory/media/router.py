"""HTTP API of media: upload by staff, images for anyone."""

from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, Depends, Path, Request, Response

from markethall.inventory.catalogue.router.dependencies import (
    CREATE_ERRORS,
    DELETE_ERRORS,
    Anyone,
    CatalogueWriter,
    ExpectedVersionsDep,
    IdempotencyDep,
    PageQueryDep,
)
from markethall.inventory.media.contract import (
    ImageRefused,
    ImageSizeNotFound,
    MediaLibrary,
    MediaNotFound,
    MediaView,
    NewMedia,
)
from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS
from markethall.shared.http.conditional_requests import (
    NOT_MODIFIED_RESPONSE,
    apply_if_none_match,
    etag_matches,
)
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.idempotent_routes import created_response
from markethall.shared.http.multipart_file import file_chunks
from markethall.shared.http.problem_details import problems
from markethall.shared.http.responses import json_response, versioned_response
from markethall.shared.http.route_policies import CardCheck, require_scope
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import Id
from markethall.shared.kernel.pagination import CursorInvalid, Page
from markethall.shared.kernel.scopes import CATALOGUE_WRITE

router = APIRouter(prefix="/media", tags=["inventory"])


class ProvidesMedia(Protocol):
    def media(self) -> MediaLibrary: ...


_from_inventory: Final[FromContext[ProvidesMedia]] = FromContext("inventory")
MediaDep = Annotated[MediaLibrary, Depends(_from_inventory(lambda container: container.media()))]
# No check for card numbers: only pixels are stored, so no card number can be stored. The metadata
# of a photo contains numbers that the check would take for card numbers.
MediaWriter = Annotated[
    CallContext, require_scope(CATALOGUE_WRITE, card_check=CardCheck(is_enabled=False))
]
ImageWidth = Annotated[
    str,
    Path(pattern="^[1-9][0-9]{0,4}$", description="One of its widths in pixels", examples=["640"]),
]

_WEBP: Final = "image/webp"
# an image never changes, so a browser may use its copy for a year without a request
_IMMUTABLE: Final = "public, max-age=31536000, immutable"
_FILE_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {
                        "type": "string",
                        "contentMediaType": "application/octet-stream",
                        "description": "JPEG, PNG, WebP or GIF; by default at most 10 MiB",
                    }
                },
                "additionalProperties": False,
            }
        }
    },
}


@router.get(
    "",
    response_model=Page[MediaView],
    summary="Images",
    responses=problems(*AUTHENTICATED_ERRORS, CursorInvalid),
)
async def list_media(ctx: CatalogueWriter, query: PageQueryDep, media: MediaDep) -> Response:
    """Return images, the newest first."""
    return json_response(await media.list_media(ctx, query))


@router.post(
    "",
    status_code=201,
    response_model=MediaView,
    summary="Upload an image",
    responses=problems(*CREATE_ERRORS, ImageRefused),
    openapi_extra={"requestBody": _FILE_BODY},
)
async def upload_media(
    request: Request, ctx: MediaWriter, media: MediaDep, idempotency: IdempotencyDep
) -> Response:
    """Store an image as WebP, in its own size and in the standard widths below it.

    The format is detected from the content, not from the file name. The image is turned upright,
    its colours are converted to sRGB, and its metadata is dropped, such as the place of a photo.
    Only the first frame of an animation is stored. To show the image, add its `url` to the `images`
    of a product.
    """
    async with media.upload(ctx, file_chunks(request)) as file:
        body = NewMedia(sha256=file.sha256)
        return await idempotency.run(
            ctx,
            body,
            lambda attempt: media.create(ctx, file, attempt),
            created_response(lambda made: f"/media/{made.media_id}"),
        )


@router.get(
    "/{media_id}",
    response_model=MediaView,
    summary="An image",
    responses=problems(MediaNotFound) | NOT_MODIFIED_RESPONSE,
)
async def get_media(request: Request, ctx: Anyone, media_id: Id, media: MediaDep) -> Response:
    """Return the sizes of an image and their addresses."""
    view = await media.get_media(ctx, media_id)
    return apply_if_none_match(request, versioned_response(view, is_public=True))


@router.get(
    "/{media_id}/{width}.webp",
    response_class=Response,
    summary="The file of an image",
    responses=problems(MediaNotFound, ImageSizeNotFound)
    | NOT_MODIFIED_RESPONSE
    | {200: {"description": "The image", "content": {_WEBP: {}}}},
)
async def get_image(
    request: Request, ctx: Anyone, media_id: Id, width: ImageWidth, media: MediaDep
) -> Response:
    """Return a size of an image, which never changes: caches may keep it for a year."""
    file = await media.find_file(ctx, media_id, int(width))
    headers = {"etag": f'"{file.tag}"', "cache-control": _IMMUTABLE}
    known_tags = request.headers.get("if-none-match")
    if known_tags is not None and etag_matches(known_tags, headers["etag"]):
        return Response(status_code=304, headers=headers)
    headers["content-disposition"] = "inline"
    return Response(await media.read_file(ctx, file), 200, headers, _WEBP)


@router.delete(
    "/{media_id}",
    status_code=204,
    response_class=Response,
    summary="Delete an image",
    responses=problems(*DELETE_ERRORS, MediaNotFound),
)
async def delete_media(
    ctx: CatalogueWriter, media_id: Id, expected_versions: ExpectedVersionsDep, media: MediaDep
) -> Response:
    """Delete an image in all sizes.

    Products that name it keep its address, and caches may show it for some time.
    """
    await media.delete(ctx, media_id, expected_versions)
    return Response(status_code=204)
