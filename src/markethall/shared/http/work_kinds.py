"""Kinds of requests, which differ in the work that they cause."""

import re
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qsl

from starlette.types import Scope

_READ_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_NEVER: Final = r"(?!)"


class WorkKind(StrEnum):
    """SEARCH: one expensive statement. LONG: uploads of files and streamed responses."""

    SEARCH = "search"
    READ = "read"
    WRITE = "write"
    LONG = "long"


class WorkKinds:
    """Tells the kind of a request from its method, path and query, before it is routed."""

    def __init__(
        self,
        search_parameters: Mapping[str, frozenset[str]],
        long_paths: Iterable[str] = (),
        upload_paths: Collection[str] = (),
    ) -> None:
        """`search_parameters`: for each path the parameters that make a read of it a search.

        `long_paths`: regular expressions of the paths of streamed responses. `upload_paths`: the
        paths to which files are uploaded by POST.
        """
        self._search_parameters = search_parameters
        self._long_paths = re.compile("|".join(long_paths) or _NEVER)
        self._upload_paths = upload_paths

    def kind_of(self, scope: Scope) -> WorkKind:
        path: str = scope["path"].rstrip("/")
        if scope["method"] not in _READ_METHODS:
            is_upload = scope["method"] == "POST" and path in self._upload_paths
            return WorkKind.LONG if is_upload else WorkKind.WRITE
        if self._long_paths.fullmatch(path):
            return WorkKind.LONG
        return WorkKind.SEARCH if self._is_search(path, scope["query_string"]) else WorkKind.READ

    def _is_search(self, path: str, query: bytes) -> bool:
        parameters = self._search_parameters.get(path)
        if not parameters or not query:
            return False
        return any(name in parameters for name, _ in parse_qsl(query.decode("latin-1")))
