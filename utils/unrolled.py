"""How large and deep data would be if each reference in it were a copy. That way a few bytes of a file, references to
references, can claim gigabytes. Not for reading files: utils/plain_yaml.py, models/unpickling.py."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Unrolled(NamedTuple):
    """The sizes of an object and all that it holds, added up, and how many levels deep the holding goes."""

    size: float
    depth: float


ENDLESS = Unrolled(math.inf, math.inf)


def unrolled(root: Any, parts: Callable[[Any], Iterable[Any]], own_size: Callable[[Any], int]) -> Unrolled:
    """Size and depth of `root`, where what is held twice counts twice; ENDLESS where something holds itself. Each
    object is looked at once, however often it is held.

    Args:
        parts: gives the objects that an object holds. They must live as long as it does: they are told apart by id().
        own_size: gives the size of an object without its parts.
    """
    known: dict[int, Unrolled] = {}
    begun: set[int] = set()  # those of them that are not known yet hold, directly or not, the object being looked at
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
