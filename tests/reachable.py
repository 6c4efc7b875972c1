"""What an object keeps in memory."""

from __future__ import annotations

import gc
from types import FunctionType, ModuleType

_SHARED = (type, ModuleType, FunctionType)


def reachable(root: object, *shared: object) -> list[object]:
    """All objects that can be reached from one, itself included; not through types, modules,
    functions and what else is shared with others."""
    shared_ids = set(map(id, shared))
    found, waiting = {id(root): root}, [root]
    while waiting:
        for one in gc.get_referents(waiting.pop()):
            if not (id(one) in found or id(one) in shared_ids or isinstance(one, _SHARED)):
                found[id(one)] = one
                waiting.append(one)
    return list(found.values())
