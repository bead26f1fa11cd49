"""Makes the case that stands beside each sample: samples/NAME/case.leakcase, by the real collector.

    python samples/make_cases.py [NAME ...] [--collector COMMAND]

Four samples run at a time, each watched for its capture_seconds. An existing case is replaced.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from runner import SAMPLES_DIR, Expected, SampleError, build, load_expected, start

AT_A_TIME = 4
# By then a spike is over, and the caches have half of their filling before them.
WARM_UP_SECONDS = 4
# A sample must outlive its capture, a slow start of the collector included.
MARGIN_SECONDS = 20


def make_case(expected: Expected, collector: list[str]) -> str:
    """Captures one sample; returns a line for a person. Raises SampleError."""
    case = SAMPLES_DIR / expected.name / "case.leakcase"
    # Says who is who in the case, so nobody else is to see it.
    private_map = case.with_name(f"{case.name}.map")
    with start(expected.name, expected.capture_seconds + MARGIN_SECONDS) as running:
        time.sleep(WARM_UP_SECONDS)
        case.unlink(missing_ok=True)
        private_map.unlink(missing_ok=True)
        capture = ["capture", str(running.pid), "--duration", f"{expected.capture_seconds}s"]
        try:
            result = subprocess.run(
                [*collector, *capture, "-o", str(case)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=expected.capture_seconds + MARGIN_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SampleError(f"cannot capture {expected.name}: {error}") from error
        if result.returncode != 0:
            raise SampleError(
                f"cannot capture {expected.name}: the collector exits {result.returncode}: "
                f"{result.stderr.strip()}"
            )
        truth = running.stop()
    private_map.unlink()
    return f"{expected.name}: {case.stat().st_size} bytes, truth {truth}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the samples' case files.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="samples (default: all)")
    parser.add_argument("--collector", default="leakcase-collect", metavar="COMMAND")
    options = parser.parse_args()
    every = {expected.name: expected for expected in load_expected()}
    if unknown := sorted(set(options.names) - set(every)):
        parser.error(f"no such sample: {', '.join(unknown)}")
    chosen = [every[name] for name in options.names or every]
    if any(expected.language != "python" for expected in chosen):
        build()
    failures = 0
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        collector = shlex.split(options.collector)
        for made in [pool.submit(make_case, expected, collector) for expected in chosen]:
            try:
                print(made.result(), flush=True)
            except SampleError as error:
                failures += 1
                print(error, file=sys.stderr, flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SampleError as error:
        sys.exit(str(error))
