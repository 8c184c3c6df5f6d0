"""The smallest part of a list of changes that still fails: delta debugging (ddmin)."""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def shrunk(items: Sequence[T], fails: Callable[[Sequence[T]], bool], *, max_tries: int = 60) -> list[T]:
    """Return a part of `items`, in order, that fails as all of them do, and none of whose items can be left out.

    After `max_tries` calls of `fails` the smallest part so far is returned.
    """
    left, n_parts, n_tried = list(items), 2, 0
    while len(left) > 1:
        size = -(-len(left) // n_parts)
        for first in range(0, len(left), size):
            rest = left[:first] + left[first + size :]
            n_tried += 1
            if n_tried > max_tries:
                return left
            if fails(rest):
                left, n_parts = rest, max(2, n_parts - 1)
                break
        else:
            if size == 1:
                return left
            n_parts = min(len(left), 2 * n_parts)
    return left
