"""Something to look at and to buy: a small shop made by hand, and a market of any size."""

from markethall.demo.market import CATEGORIES, Branch, market
from markethall.demo.shop import fill

__all__ = ["CATEGORIES", "Branch", "fill", "market"]
