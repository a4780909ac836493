"""Gateways: the clients of the built-in payment providers."""

from markethall.payments.gateway.sandbox import SandboxGateway as SandboxGateway
from markethall.payments.gateway.sandbox_webhooks import SandboxWebhooks as SandboxWebhooks
