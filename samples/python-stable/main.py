"""A worker that parses, sorts and formats, and keeps nothing but its 499 latest results."""

from __future__ import annotations

import collections
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import Sample  # noqa: E402

JOBS_PER_SECOND = 101
RESULTS_KEPT = 499

results: collections.deque[str] = collections.deque(maxlen=RESULTS_KEPT)


def do_job(number: int) -> None:
    rows = [{"row": row, "key": (row * 7919 + number) % 997} for row in range(101)]
    parsed = json.loads(json.dumps(rows))
    results.append(",".join(str(row["key"]) for row in sorted(parsed, key=lambda row: row["key"])))


def main() -> None:
    sample = Sample("python-stable")
    for number in range(RESULTS_KEPT):
        do_job(number)
    done = 0
    for _ in sample.ticks():
        while done < sample.due(JOBS_PER_SECOND):
            do_job(RESULTS_KEPT + done)
            done += 1
    sample.end(0, 0)


if __name__ == "__main__":
    main()
