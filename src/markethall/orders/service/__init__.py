"""Use cases, event handlers and jobs of orders."""
