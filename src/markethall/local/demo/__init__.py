"""Something to look at and to buy: a small shop made by hand, and a market of any size."""

from markethall.demo.crowding import Market, known_skus, plant
from markethall.demo.market import CATEGORIES, Branch, market
from markethall.demo.shop import fill

__all__ = ["CATEGORIES", "Branch", "Market", "fill", "known_skus", "market", "plant"]
