"""Public test numbers of card brands, as payment providers document them."""

from typing import Final

CARD_NUMBERS: Final = {
    "Visa": "4111111111111111",
    "Mastercard": "2223003122003222",
    "American Express": "378282246310005",
    "Diners Club": "36227206271667",
    "Discover": "6011111111111117",
    "JCB": "3566002020360505",
    "UnionPay": "6205500000000000004",
    "Maestro": "6759649826438453",
}
