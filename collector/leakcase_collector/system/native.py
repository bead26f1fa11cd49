"""The collector's own C code, where it was built: faster, and never needed.

Everything that it does is written in Python as well, with equal results. ``LEAKCASE_NATIVE=0`` in
the environment leaves it out.
"""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from typing import Optional

#: Beside the package's modules; not there in a zipapp, nor where no compiler was at installation.
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIBRARY = os.path.join(_PACKAGE, "_native", "libleakcase.so")
#: In a source tree.
SOURCES = os.path.join(os.path.dirname(_PACKAGE), "native")


def load() -> Optional[ctypes.CDLL]:
    """The library; None where it is not to be used, is not there, or is for another machine."""
    if os.environ.get("LEAKCASE_NATIVE") == "0" or _is_stale(LIBRARY, SOURCES):
        return None
    return _open(LIBRARY)


@lru_cache(maxsize=1)
def _open(path: str) -> Optional[ctypes.CDLL]:
    try:
        return ctypes.CDLL(path)
    except OSError:
        return None


@lru_cache(maxsize=1)
def _is_stale(library: str, sources: str) -> bool:
    """Whether the C code changed since it was compiled, as by a pull: the structures that we hand
    over would be others than it knows. ``make native`` compiles it again."""
    try:
        built_ns = os.stat(library).st_mtime_ns
        with os.scandir(sources) as entries:
            return any(
                entry.stat().st_mtime_ns > built_ns
                for entry in entries
                if entry.name.endswith((".c", ".h"))
            )
    except OSError:
        return False
