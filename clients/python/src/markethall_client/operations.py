"""All operations of the API, by `operationId`, generated from the OpenAPI document."""

from markethall_client.generated.operations import *  # noqa: F403 - lists the generated names
