"""The steps of the scenario about registration, sessions, roles and deactivation."""

from typing import Any

from tests.partitions.scenario.steps import NOWHERE, place_order
from tests.partitions.scenario_runner import ScenarioRunner


async def register_users(runner: ScenarioRunner) -> None:
    for name in ("anna", "ben", "carl", "dora"):
        await runner.sign_up(name)
    await runner.post("/users", body=_registration("ANNA", "other@example.com"))
    await runner.post("/users", body=_registration("anna2", "Anna@Example.com"))
    await runner.post("/users", body=_registration("eve", "eve@example.com", password="12345678"))
    await runner.post("/users", body={"username": "x", "email": "no address", "extra": 1})
    await runner.sign_in("unknown", "wrong password", "anna")
    await runner.sign_in("unknown", "wrong password", "who")
    await _sessions(runner)
    me = await runner.get("/users/me", "anna")
    await runner.get("/users/me", "anna", headers={"if-none-match": me["etag"]})
    await runner.patch("/users/me", "anna", {"full_name": "Anna Ünal", "tags": ["new", "tea"]})
    await runner.patch("/users/me", "anna", {"full_name": "late"}, etag=me["etag"])
    change = {"current_password": "ben likes tea", "new_password": "ben likes coffee"}
    await runner.post("/users/me/password", "ben", change)
    await runner.post("/users/me/password", "ben", change)
    await runner.sign_in("ben", "ben likes coffee")
    await runner.get("/users/me")
    await runner.get("/users", "anna")
    await runner.get("/users?limit=2", "admin")
    await runner.get("/.well-known/jwks.json")


def _registration(name: str, email: str, password: str = "a long enough one") -> dict[str, str]:  # noqa: S107 - a password of the tests
    return {"username": name, "email": email, "password": password}


async def _sessions(runner: ScenarioRunner) -> None:
    first = await runner.sign_in("carl", "carl likes tea")
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    second = await runner.request("POST", "/token", data=form)
    await runner.request("POST", "/token/revoke", data={"token": second["refresh_token"]})
    form["refresh_token"] = second["refresh_token"]
    await runner.request("POST", "/token", data=form)
    await runner.request("POST", "/token", data={"grant_type": "magic"})


async def staff_roles(runner: ScenarioRunner, products: dict[str, str]) -> None:
    """Grant a staff role and check its scope."""
    await _change_user(runner, "dora", {"roles": ["staff:orders"]})
    await runner.sign_in("dora", "dora likes tea")
    for path in ("/orders?limit=2&status=processing", f"/products/{products['tea']}/stock"):
        await runner.get(path, "dora")
    await runner.get("/transactions", "dora")
    await runner.stats("dora")
    page = await runner.get("/orders?limit=3&sort=created_at", "dora")
    await runner.get(f"/orders?limit=3&sort=created_at&cursor={page['next_cursor']}", "dora")
    await runner.get(f"/orders?limit=3&cursor={page['next_cursor']}", "dora")
    await runner.get("/orders?limit=0", "dora")
    await _change_user(runner, "dora", {"roles": ["king"]})
    await _change_user(runner, "admin", {"roles": ["customer"]})


async def _change_user(runner: ScenarioRunner, name: str, change: dict[str, Any]) -> None:
    me = await runner.get("/users/me", name)
    path = f"/users/{me.get('user_id', NOWHERE)}"
    found = await runner.get(path, "admin")
    await runner.patch(path, "admin", change)
    await runner.patch(path, "admin", change, etag=found.get("etag", '"v1"'))


async def deactivated_user(runner: ScenarioRunner, products: dict[str, str]) -> None:
    """Deactivate a user; orders must reject the user although the access token is still valid."""
    me = await runner.get("/users/me", "ben")
    for active in (False, True):
        found = await runner.get(f"/users/{me['user_id']}", "admin")
        path = f"/users/{me['user_id']}"
        await runner.patch(path, "admin", {"is_active": active}, etag=found["etag"])
        await place_order(runner, "ben", {products["tea"]: 1})
        await runner.get("/users/me", "ben")
        await runner.sign_in("ben", "ben likes coffee")
