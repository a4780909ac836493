"""An index of the routes by the first segment of their path."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

_NO_MATCH: Final[tuple[Match, Scope]] = (Match.NONE, {})


class RouteIndex(BaseRoute):
    """A route that stands before all others and finds most of them faster than FastAPI.

    FastAPI tries all routes in turn. That takes a fifth of the processor time of a simple read.
    This route tries only those with the first segment of the path. If none of them matches the path
    and the method, FastAPI goes on with all routes. A route whose first segment is a parameter is
    not in the index, so another route that matches has precedence over it.

    `path_format` is the path template of the last route that matched. FastAPI reads it right after
    `matches`, for the telemetry of the request; no other request can match in between.
    """

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self.path_format: str | None = None
        self._by_segment: defaultdict[str, list[APIRoute]] = defaultdict(list)
        for route in routes:
            if isinstance(route, APIRoute) and "{" not in _first_segment(route.path):
                self._by_segment[_first_segment(route.path)].append(route)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        # with a root path, the first segment may belong to the root path, not to a route
        if scope["type"] != "http" or scope.get("root_path"):
            return _NO_MATCH
        for route in self._by_segment.get(_first_segment(scope["path"]), ()):
            match, child_scope = route.matches(scope)
            if match is Match.FULL:
                self.path_format = route.path_format
                return match, child_scope
        return _NO_MATCH

    def find_path(self, path: str) -> tuple[str | None, set[str]]:
        """Return the template of the path and the methods of its routes; None if there is none."""
        segment = _first_segment(path)
        found = [r for r in self._by_segment.get(segment, ()) if r.path_regex.match(path)]
        methods = set[str]().union(*(route.methods or () for route in found))
        return (found[0].path if found else None), methods

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the route that has matched; its `matches` has stored it in the scope."""
        await scope["route"].handle(scope, receive, send)


def _first_segment(path: str) -> str:
    return path[1:].partition("/")[0]
