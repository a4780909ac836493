"""Broken implementations, which check in one statement or transaction and write in another."""
