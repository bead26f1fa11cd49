"""A service with a bounded cache: it fills in about 10 s and then replaces its oldest entry."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import Sample  # noqa: E402

REQUESTS_PER_SECOND = 997
CACHE_ENTRIES = 10_007
PAGE_BYTES = 1_511


@functools.lru_cache(maxsize=CACHE_ENTRIES)
def render_page(number: int) -> bytes:
    return number.to_bytes(8, "big") + b"\xa7" * PAGE_BYTES


def main() -> None:
    sample = Sample("python-lru-cache")
    served = 0
    for _ in sample.ticks():
        while served < sample.due(REQUESTS_PER_SECOND):
            render_page(served)
            served += 1
    sample.end(0, 0)


if __name__ == "__main__":
    main()
