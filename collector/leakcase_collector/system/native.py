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
LIBRARY = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "_native", "libleakcase.so"
)


def load() -> Optional[ctypes.CDLL]:
    """The library; None where it is not to be used, is not there, or is for another machine."""
    if os.environ.get("LEAKCASE_NATIVE") == "0":
        return None
    return _open(LIBRARY)


@lru_cache(maxsize=1)
def _open(path: str) -> Optional[ctypes.CDLL]:
    try:
        return ctypes.CDLL(path)
    except OSError:
        return None
