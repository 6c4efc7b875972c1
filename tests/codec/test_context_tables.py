"""Tables of the context coder: checked, found by the book, and pickled with it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from codec.coders import CoderBook
from codec.context import (
    ContextTables,
)

TABLES = ContextTables.random((8, 64, 2048), seed=1)


def test_the_book_has_it_and_can_be_pickled() -> None:
    book = CoderBook({}, TABLES)
    copy = pickle.loads(pickle.dumps(book))
    positions = np.arange(12)
    data = book(2, 64).encode(positions, positions, (3, 4))
    assert book(2, 64).mode == 2
    assert copy(2, 64).encode(positions, positions, (3, 4)) == data
    for empty in (CoderBook({}), CoderBook({}, ContextTables.random((8,)))):
        with pytest.raises(LookupError, match="64"):
            empty(2, 64)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda arrays: arrays.pop("layer2"),
        lambda arrays: arrays.update(layer2=arrays["layer2"][:-1]),
        lambda arrays: arrays.update(query=arrays["query"].astype(np.int32)),
        lambda arrays: arrays.update(floors=0 * arrays["floors"]),
        lambda arrays: arrays.update(heads=-arrays["heads"]),
        lambda arrays: arrays.clear(),
    ],
)
def test_tables_are_checked(spoil: Callable[[dict[str, Any]], object]) -> None:
    arrays = dict(TABLES.arrays)
    spoil(arrays)
    with pytest.raises(ValueError):
        ContextTables(arrays)
