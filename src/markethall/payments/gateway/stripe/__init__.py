"""The gateway of Stripe. Only shops that use this provider import the SDK."""
