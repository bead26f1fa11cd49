"""`make demo`: a program that really leaks is started, watched and judged, in front of your eyes.

The sample comes from samples/ (the C one where there is a compiler, else one in Python that leaks
native memory), runs under a limit and ends by itself. The case stays in build, for you to look at.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from samples import runner  # noqa: E402

CAPTURE_SECONDS = 45
# The sample must outlive its capture on a slow machine, and never outlive us by much.
SAMPLE_SECONDS = 100
BIN = Path(sys.executable).parent
#: Everything that leaves the program undisturbed; tracing from the kernel wants root.
LOOK_INSIDE = ("--allow", "read-memory")
TRACE = ("--trace", "bursts", "--allow", "read-memory,trace")


def sample_name() -> str:
    """The sample to show: one in C where it can be built."""
    if all(shutil.which(program) for program in ("make", "cc")):
        command = ["make", "--silent", f"--directory={runner.SAMPLES_DIR}"]
        if subprocess.run([*command, "build/small-block-leak"], check=False).returncode == 0:
            return "small-block-leak"
    return "python-native-leak"


def run(folder: Path, *command: str) -> bool:
    """Show a command, run it in `folder`, and say whether it went well (a partial capture did)."""
    print("\n$", *command, flush=True)
    program = [str(BIN / command[0]), *command[1:]]
    return subprocess.run(program, cwd=folder, check=False).returncode in (0, 3)


def demo(folder: Path) -> int:
    """Start, capture, analyze; the exit status."""
    case, length = "demo.leakcase", f"{CAPTURE_SECONDS}s"
    with runner.start(sample_name(), SAMPLE_SECONDS) as running:
        pid = str(running.pid)
        print(f"{running.expected.name} runs as process {pid}. {running.expected.summary}")
        print(f"It will be watched for {CAPTURE_SECONDS} s.")
        how = TRACE if os.geteuid() == 0 else LOOK_INSIDE
        took = run(
            folder, "leakcase-collect", "capture", pid, "--duration", length, *how, "-o", case
        )
        truth = running.stop()
    if not (took and run(folder, "leakcase", "analyze", case)):
        return 1
    per_hour = truth["leaked_bytes"] / truth["elapsed_seconds"] * 3600 / (1 << 20)
    place = running.expected.what_is_leaked
    where = f", by {place.symbol} ({place.file}:{place.line})" if place else ""
    print(f"\nWhat the program itself counted: {per_hour:,.0f} MiB leaked per hour{where}.")
    where = os.path.relpath(BIN)
    kept = keep(folder / case)
    print(f"As a page: {where}/leakcase report {kept} --format html")
    print(f"Now yours: {where}/leakcase-collect capture PID; {where}/leakcase analyze FILE")
    return 0


def keep(case: Path) -> str:
    """Move the case and its private map into build; the path from here."""
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    for path in (case, case.with_name(case.name + ".map")):
        if path.exists():
            shutil.move(path, build / path.name)
    return os.path.relpath(build / case.name)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="leakcase-demo-") as folder:
        try:
            return demo(Path(folder))
        except KeyboardInterrupt:
            return 130
        except runner.SampleError as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
