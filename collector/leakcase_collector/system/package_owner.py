"""`PackageOwner`: the answer that every package database gives."""

from __future__ import annotations

from typing import NamedTuple


class PackageOwner(NamedTuple):
    """The package that a file came from; `system` is ``dpkg``, ``apk`` or ``rpm``.

    `version` as that system writes it, epoch included: ``1:1.2.3-4``. None: not recorded.
    """

    system: str
    name: str
    architecture: str | None
    version: str | None
