"""The use cases of promotions."""
