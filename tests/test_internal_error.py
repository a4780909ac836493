"""Test that an internal error is a problem response without details."""

import httpx2

from markethall.app import create_app
from markethall.settings import read_settings


async def test_internal_error_has_id_and_no_details() -> None:
    app = create_app(read_settings(storage="memory"))

    @app.app.get("/fault")
    async def fault() -> None:
        raise ZeroDivisionError("internal detail")

    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as http:
        response = await http.get("/fault", headers={"x-request-id": "client-id"})

    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] == "client-id"
    assert response.json()["details"] == {"error_id": "client-id"}
    assert "internal detail" not in response.text
    assert "ZeroDivision" not in response.text
