"""The use cases of carts."""
