"""Sends the requests of the scenario one after another and logs the responses."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final

import httpx2

from tests.e2e.servers import ADMIN, CONTEXTS, RunningServer
from tests.partitions.log import Log
from tests.partitions.log_normalizer import leaves
from tests.partitions.server_inspector import TIMEOUT_SECONDS, Clock, ServerInspector
from tests.progress import progress_limit

_HEADERS: Final = (
    "content-type",
    "location",
    "etag",
    "cache-control",
    "idempotency-replayed",
    "retry-after",
    "www-authenticate",
    "allow",
    "x-request-id",
)
_DIGEST = re.compile(r"(?<=v[0-9])-[0-9a-f]{12}")


class ScenarioRunner:
    """The HTTP client of the scenario; `tokens` has the access token of each logged-in user."""

    def __init__(
        self, server: RunningServer, http: httpx2.AsyncClient, inspector: ServerInspector
    ) -> None:
        self.log = Log()
        self.tokens: dict[str, str] = {}
        self._server = server
        self._http = http
        self._inspector = inspector
        self._step = 0

    async def get(self, path: str, user: str = "", **options: Any) -> Any:
        return await self.request("GET", path, user, **options)

    async def post(self, path: str, user: str = "", body: Any = None, **options: Any) -> Any:
        """Send a POST with a new idempotency key, or with the option `key`; None sends no key."""
        key = options.pop("key", f"key-{self._step + 1}")
        headers = {"idempotency-key": key} if key else {}
        headers |= options.pop("headers", {})
        return await self.request("POST", path, user, headers=headers, json=body, **options)

    async def patch(self, path: str, user: str, body: Any, etag: str = "") -> Any:
        return await self.request(
            "PATCH", path, user, headers={"if-match": etag} if etag else {}, json=body
        )

    async def request(
        self,
        method: str,
        path: str,
        user: str = "",
        *,
        headers: Mapping[str, str] = {},
        **options: Any,
    ) -> Any:
        """Send and log a request. Return the body of the response.

        If the response has an ETag and the body is an object, the member `etag` is added.
        """
        self._step += 1
        self.log.write(f"#{self._step:03} {method} {path} {f'as {user}' if user else ''}".rstrip())
        response = await self._send(method, path, user, headers, options)
        body = _read(response)
        self._log_response(response, body)
        if isinstance(body, dict) and "etag" in response.headers:
            return {**body, "etag": response.headers["etag"]}
        return body

    async def sign_up(self, name: str) -> str:
        """Register a customer and log in. Return the user id."""
        body = {"username": name, "email": f"{name}@example.com", "password": f"{name} likes tea"}
        user = await self.post("/users", body=body)
        await self.sign_in(name, body["password"])
        return str(user["user_id"])

    async def sign_in(self, name: str, password: str, username: str = "") -> dict[str, Any]:
        form = {"grant_type": "password", "username": username or name, "password": password}
        pair: dict[str, Any] = await self.request("POST", "/token", data=form)
        # after a rejected login the previous token stays
        self.tokens[name] = pair.get("access_token", self.tokens.get(name, ""))
        return pair

    async def sign_in_admin(self) -> None:
        await self.sign_in("admin", ADMIN[1], ADMIN[0])

    async def stats(self, user: str) -> None:
        """Log /stats of all processes as one, because each counts only its own contexts."""
        counts: dict[str, int] = {}
        for address in dict.fromkeys(self._server.urls[context] for context in CONTEXTS):
            response = await self._http.get(f"{address}/stats", headers=self._authorization(user))
            counts |= {name: count for name, count in response.json().items() if count is not None}
        self.log.write(*leaves(dict(sorted(counts.items())), "/stats"))

    async def wait_until_idle(self) -> None:
        await self._inspector.wait_until_idle()

    async def close(self) -> None:
        """Append the events and the stored rows to the log."""
        await self.log.close(self._inspector)

    async def make_due(self, clock: Clock, key: str) -> None:
        await self._inspector.make_due(clock, key)

    async def wait_for(self, path: str, user: str, **expected: str) -> None:
        """Poll until all these fields have these values. Raises AssertionError after a timeout.

        The polls are not logged, because their number varies.
        """
        found: dict[str, Any] = {}
        try:
            async with progress_limit(TIMEOUT_SECONDS) as limit:
                while any(found.get(name) != value for name, value in expected.items()):
                    response = await self._send("GET", path, user, {}, {})
                    found = response.json()
                    found = found["items"][0] if "items" in found else found
                    limit.note(found)
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{path} is not {expected} but {found}") from None
        await self.wait_until_idle()

    async def _send(
        self,
        method: str,
        path: str,
        user: str,
        headers: Mapping[str, str],
        options: Mapping[str, Any],
    ) -> httpx2.Response:
        own = {
            "x-request-id": f"scenario-{self._step}",
            "traceparent": f"00-{self._step:032x}-{1:016x}-01",
        }
        return await self._http.request(
            method,
            self._server.url(path),
            headers={**own, **self._authorization(user), **headers},
            **options,
        )

    def _authorization(self, user: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.tokens[user]}"} if user else {}

    def _log_response(self, response: httpx2.Response, body: Any) -> None:
        lines = [
            # the digest in an entity tag covers ids and times, which differ between runs
            f"{name}: {_DIGEST.sub('', response.headers[name])}"
            for name in _HEADERS
            if name in response.headers
        ]
        lines += leaves(body) if isinstance(body, (dict, list)) else [f"text: {body}"]
        self.log.write(str(response.status_code), *lines)


def _read(response: httpx2.Response) -> Any:
    return response.json() if "json" in response.headers.get("content-type", "") else response.text
