"""What a mistake is: where it is planted, how, and what must be said of it."""

from collections.abc import Callable
from typing import NamedTuple

from k8s.rendered import Manifests


class Mistake(NamedTuple):
    name: str
    plant: Callable[[Manifests], object]
    expected: str
    overlay: str = "together"
