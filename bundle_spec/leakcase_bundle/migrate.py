"""Chained migrations: a record's map of an older version becomes one of the next.

A migration takes a map and returns a map; it knows one step only. The reader applies steps until
none is left, so an old case is read by code that knows the newest version alone. Fields are only
ever added, never re-used, so most changes need no migration at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from .errors import Damaged
from .schema import KIND_KEY, VERSION_KEY

Migration = Callable[[dict[str, Any]], dict[str, Any]]

#: (kind, the version it takes) -> step. Empty: no record has had a second version yet.
MIGRATIONS: dict[tuple[str, int], Migration] = {}

_MAX_STEPS = 64


def migrate(
    raw: dict[str, Any], migrations: Mapping[tuple[str, int], Migration] = MIGRATIONS
) -> dict[str, Any]:
    """The map after every step that applies to it."""
    for _ in range(_MAX_STEPS):
        step = migrations.get((raw.get(KIND_KEY), raw.get(VERSION_KEY)))  # type: ignore[arg-type]
        if step is None:
            return raw
        raw = step(dict(raw))
    raise Damaged("a record's migrations do not come to an end")
