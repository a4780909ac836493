"""Broken implementations that check in one statement or transaction, and write in another."""
