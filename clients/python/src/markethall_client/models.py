"""Request and response bodies, generated from the OpenAPI document."""

from markethall_client.generated.models import *  # noqa: F403 - lists the generated names
