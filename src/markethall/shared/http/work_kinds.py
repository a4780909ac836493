"""Kinds of requests. The limits on running requests are different for each kind."""

import re
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl

from starlette.types import Scope

READ_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_NEVER: Final = r"(?!)"


class WorkKind(StrEnum):
    """The kind of a request.

    SEARCH is a read with an expensive statement. FACET_SEARCH is a search that also counts all its
    matches, so it is more expensive. LONG is an upload of a file or a streamed response.
    """

    SEARCH = "search"
    FACET_SEARCH = "facet_search"
    READ = "read"
    WRITE = "write"
    LONG = "long"


SEARCHES: Final = frozenset({WorkKind.SEARCH, WorkKind.FACET_SEARCH})


class WorkKinds:
    """Tells the kind of a request from its method, path and query, before it is routed."""

    def __init__(
        self,
        search_parameters: Mapping[str, frozenset[str]],
        long_paths: Iterable[str] = (),
        upload_paths: Collection[str] = (),
        facet_parameters: Mapping[str, frozenset[str]] = MappingProxyType({}),
    ) -> None:
        """`search_parameters` maps a path to the query parameters that turn a read into a search.

        `facet_parameters` maps a path to the query parameters that turn a read into a facet search.
        `long_paths`: regular expressions of the paths of streamed responses. `upload_paths`: the
        paths to which files are uploaded by POST.
        """
        self._search_parameters = search_parameters
        self._facet_parameters = facet_parameters
        self._long_paths = re.compile("|".join(long_paths) or _NEVER)
        self._upload_paths = upload_paths

    def kind_of(self, scope: Scope) -> WorkKind:
        path: str = scope["path"].rstrip("/")
        if scope["method"] not in READ_METHODS:
            is_upload = scope["method"] == "POST" and path in self._upload_paths
            return WorkKind.LONG if is_upload else WorkKind.WRITE
        if self._long_paths.fullmatch(path):
            return WorkKind.LONG
        return self._kind_of_read(path, scope["query_string"])

    def _kind_of_read(self, path: str, query: bytes) -> WorkKind:
        parameters = self._search_parameters.get(path)
        if not parameters or not query:
            return WorkKind.READ
        names = {name for name, _ in parse_qsl(query.decode("latin-1"))}
        if names & self._facet_parameters.get(path, frozenset()):
            return WorkKind.FACET_SEARCH
        return WorkKind.SEARCH if names & parameters else WorkKind.READ
