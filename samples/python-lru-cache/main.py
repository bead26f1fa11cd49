"""A service with a bounded cache: it fills in about 10 s and then replaces its oldest entry."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import Sample  # noqa: E402

# Few entries, so that the dict behind the cache is small: each time that it has used up its slots
# it is made anew beside the old one, and with 10,000 entries that is a step of half a megabyte.
REQUESTS_PER_SECOND = 53
CACHE_ENTRIES = 503
PAGE_BYTES = 29_989


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
