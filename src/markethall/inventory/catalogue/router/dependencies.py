"""FastAPI dependencies of the catalogue routes; other sub-domains import some of them.

They select the language of names and descriptions in responses. A response contains all
translations. Content negotiation selects one of the languages, and the texts of the response are
replaced by its translations. So the cached product or page is the same for all languages. Only the
response cache of the gateway has an entry per language.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Final, Protocol

from fastapi import Depends, Header, Query, Request, Response
from pydantic import Field
from pydantic_core import from_json, to_json

from markethall.inventory.catalogue.contract.categories import Categories
from markethall.inventory.catalogue.contract.families import Families
from markethall.inventory.catalogue.contract.products import Catalogue, RenderedResponse
from markethall.shared.http.common_errors import (
    AUTHENTICATED_ERRORS,
    BODY_ERRORS,
    IDEMPOTENCY_ERRORS,
    VERSION_ERRORS,
)
from markethall.shared.http.conditional_requests import apply_if_none_match, if_match
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.idempotent_routes import IdempotencyRunner, idempotency_runner
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.response_cache import offer
from markethall.shared.http.responses import PUBLIC_CACHE_CONTROL, RawJsonResponse
from markethall.shared.http.route_policies import LONG_TEXT_BODY_LIMITS, public, require_scope
from markethall.shared.kernel import etags
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.etags import content_digest
from markethall.shared.kernel.languages import lookup_language, parse_accept_language
from markethall.shared.kernel.model import QueryModel, Text
from markethall.shared.kernel.pagination import PageQuery
from markethall.shared.kernel.scopes import CATALOGUE_WRITE

# The start of a member `translations` that is not empty. The bytes cannot occur inside a string,
# because JSON escapes the quotes there.
_HAS_TRANSLATIONS: Final = (b'"translations":{"', b'"translations": {"')
_LISTS: Final = ("items", "products")
_LANGUAGE_RANGE: Final = r"^[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*$"
LanguageRange = Annotated[
    Text,
    Field(
        max_length=35,
        pattern=_LANGUAGE_RANGE,
        json_schema_extra={"pattern": _LANGUAGE_RANGE},
        examples=["de-AT"],
    ),
]


class Services(Protocol):
    """The services that these routes call."""

    def catalogue(self) -> Catalogue: ...

    def categories(self) -> Categories: ...

    def families(self) -> Families: ...

    def catalogue_language(self) -> str: ...


_from_inventory: Final[FromContext[Services]] = FromContext("inventory")
_own_language: Final = _from_inventory(lambda container: container.catalogue_language())


@dataclass(frozen=True)
class LanguageRequest:
    """The requested language, and the one of the texts without translation.

    `lang`, if not None, replaces Accept-Language. `own_language` is a tag, or empty if unknown.
    """

    lang: str | None
    own_language: str = ""


class LanguageSelector:
    """Selects the language of one response."""

    def __init__(self, body: bytes, requested: LanguageRequest) -> None:
        has_translations = any(member in body for member in _HAS_TRANSLATIONS)
        self._body = body if has_translations else None
        self._lang = requested.lang
        self._own_language = requested.own_language

    def __call__(self, accept_language: bytes) -> bytes:
        """Return the tag of the language; that of the texts without translation may be empty."""
        own_language = self._own_language.encode()
        if self._body is None or not (self._lang or accept_language):
            return own_language
        ranges: Sequence[str] = (
            [self._lang] if self._lang else parse_accept_language(accept_language.decode("latin-1"))
        )
        found = lookup_language(ranges, self._available)
        return own_language if found is None else found.encode()

    @cached_property
    def _available(self) -> dict[str, str]:
        document = from_json(self._body or b"{}")
        tags = {tag for entity in _entities(document) for tag in entity["translations"]}
        if self._own_language:
            tags.add(self._own_language)
        return {tag.lower(): tag for tag in tags}


_DESCRIPTION: Final = "Language of names and descriptions, instead of `Accept-Language`"
# declared for the OpenAPI document; `send_rendered` reads the header, which may be repeated
AcceptLanguage = Annotated[
    str | None, Header(description="Languages of names and descriptions; `de-AT` also finds `de`")
]


class LanguageQuery(QueryModel):
    """The query parameters of a single resource. Unknown parameters are rejected."""

    lang: Annotated[LanguageRange | None, Field(description=_DESCRIPTION)] = None


async def requested_language(
    request: Request,
    lang: Annotated[LanguageRange | None, Query(description=_DESCRIPTION)] = None,
    accept_language: AcceptLanguage = None,  # noqa: ARG001 - for the document
) -> LanguageRequest:
    """Return the parameter `lang` of a list. The query model of the list ignores it.

    The own language is no dependency, because FastAPI takes 3 % of an uncached read for each.
    """
    return LanguageRequest(lang, await _own_language(request))


async def requested_language_of_resource(
    request: Request,
    query: Annotated[LanguageQuery, from_query(LanguageQuery)],
    accept_language: AcceptLanguage = None,  # noqa: ARG001 - for the document
) -> LanguageRequest:
    return LanguageRequest(query.lang, await _own_language(request))


# the query parameters of `requested_language`
LANGUAGE_PARAMETERS: Final = frozenset({"lang"})
RequestedLanguage = Annotated[LanguageRequest, Depends(requested_language)]
# for routes without other query parameters
ResourceLanguage = Annotated[LanguageRequest, Depends(requested_language_of_resource)]


def localize(rendered: RenderedResponse, language: str) -> RenderedResponse:
    """Replace the texts by their translations to a language, and the ETag accordingly.

    In a list, a product without a translation to this language shows the translation to a shorter
    tag (de for de-AT), or its own texts.
    """
    document = from_json(rendered.body)
    for entity in _entities(document):
        _replace_texts(entity, language)
    body = to_json(document)
    digest = content_digest(language.encode() + b"\n" + body)
    # the ETag of a product begins with its version, which If-Match compares
    version, dash, _ = rendered.etag.rpartition("-")
    etag = f'{version}-{digest}"' if dash else f'"{digest}"'
    return RenderedResponse(body, etag, rendered.is_public, rendered.is_current)


def _entities(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the document and the members of its lists, at any depth, that have translations."""
    if isinstance(document.get("translations"), dict):
        yield document
    for name in _LISTS:
        for member in document.get(name) or ():
            if isinstance(member, dict):
                yield from _entities(member)


def _replace_texts(entity: dict[str, Any], language: str) -> None:
    translations: dict[str, dict[str, str | None]] = entity["translations"]
    tag = lookup_language([language], {tag.lower(): tag for tag in translations})
    if tag is not None:
        texts = translations[tag].items()
        entity.update({name: text for name, text in texts if text is not None and name in entity})


CatalogueDep = Annotated[
    Catalogue, Depends(_from_inventory(lambda container: container.catalogue()))
]
CategoriesDep = Annotated[
    Categories, Depends(_from_inventory(lambda container: container.categories()))
]
FamiliesDep = Annotated[Families, Depends(_from_inventory(lambda container: container.families()))]
IdempotencyDep = Annotated[IdempotencyRunner, Depends(idempotency_runner("inventory"))]
ExpectedVersionsDep = Annotated[etags.ExpectedVersions, Depends(if_match)]
Anyone = Annotated[CallContext, public()]
# with the scope, drafts and archived products are shown too
AnyoneOrWriter = Annotated[CallContext, public(optional_scope=CATALOGUE_WRITE)]
CatalogueWriter = Annotated[CallContext, require_scope(CATALOGUE_WRITE)]
ProductWriter = Annotated[
    CallContext, require_scope(CATALOGUE_WRITE, body_limits=LONG_TEXT_BODY_LIMITS)
]

PageQueryDep = Annotated[PageQuery, from_query(PageQuery)]

# the errors of routes that create, change or delete a resource, without those of the resource
CREATE_ERRORS: Final = (*AUTHENTICATED_ERRORS, *BODY_ERRORS, *IDEMPOTENCY_ERRORS)
CHANGE_ERRORS: Final = (*AUTHENTICATED_ERRORS, *BODY_ERRORS, *VERSION_ERRORS)
DELETE_ERRORS: Final = (*AUTHENTICATED_ERRORS, *VERSION_ERRORS)

# one object for all responses in the cache
_PUBLIC: Final = PUBLIC_CACHE_CONTROL.encode()


def send_rendered(
    request: Request, rendered: RenderedResponse, requested: LanguageRequest
) -> Response:
    """Respond with 200, or 304 when the client has this ETag, in the requested language.

    A public response from the cache is also offered to the response cache of the gateway, which
    can then answer the same request without calling the route.
    """
    select = LanguageSelector(rendered.body, requested)
    if rendered.is_public and rendered.is_current is not None:
        offer(request.scope, rendered.is_current, select)
    language = select(", ".join(request.headers.getlist("accept-language")).encode("latin-1"))
    if language and language != requested.own_language.encode():
        rendered = localize(rendered, language.decode())
    cache_control = _PUBLIC if rendered.is_public else b"no-store"
    response = RawJsonResponse(rendered.body, rendered.etag, cache_control)
    response.raw_headers.append((b"vary", b"Accept-Language"))
    if language:
        response.raw_headers.append((b"content-language", language))
    return apply_if_none_match(request, response)
