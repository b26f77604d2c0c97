"""How large and deep data would be if each reference in it were a copy: what a few bytes with references to references
claim. Not for reading anything."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Unrolled(NamedTuple):
    """Sizes added up over an object and all that it holds, and how many levels of holding there are."""

    size: float
    depth: float


ENDLESS = Unrolled(math.inf, math.inf)


def unrolled(root: Any, parts: Callable[[Any], Iterable[Any]], own_size: Callable[[Any], int]) -> Unrolled:
    """What is held twice counts twice; ENDLESS where something holds itself. Looks at each object once.

    parts: what an object holds, objects that live as long as it does. own_size: of an object without its parts.
    """
    known: dict[int, Unrolled] = {}
    begun: set[int] = set()  # what is in it and not yet known is on the way from the root
    stack = [root]
    while stack:
        item, held = stack[-1], list(parts(stack[-1]))
        if id(item) in begun:
            stack.pop()
            below = [known[id(part)] for part in held]
            depth = 1 + max((part.depth for part in below), default=0)
            known[id(item)] = Unrolled(own_size(item) + sum(part.size for part in below), depth)
            continue
        begun.add(id(item))
        waiting = list({id(part): part for part in held if id(part) not in known}.values())
        if any(id(part) in begun for part in waiting):
            return ENDLESS
        stack.extend(waiting)
    return known[id(root)]
