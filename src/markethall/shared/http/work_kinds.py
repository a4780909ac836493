"""Kinds of requests, which differ in the work that they cause."""

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
    """SEARCH: one expensive statement. LONG: uploads of files and streamed responses.

    FACET_SEARCH: a search that also counts all its matches, so it weighs more.
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
        """`search_parameters`: for each path the parameters that make a read of it a search.

        `facet_parameters`: those of them that make it count facets.
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
