"""A step of building the wheels: compile the collector's C code, if there is a C compiler.

Without one, or where it fails, the wheel is pure Python and does the same, more slowly. With
``LEAKCASE_NATIVE=0`` in the environment it stays pure Python.

    python hatch_build.py      compile in place, for an editable installation
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess  # noqa: TID251  (not part of the collector)
import sys
import sysconfig
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "collector" / "native"
IN_PLACE = ROOT / "collector" / "leakcase_collector" / "_native" / "libleakcase.so"
IN_WHEEL = "leakcase_collector/_native/libleakcase.so"
#: No library is needed: what little is called (memcpy) is in every process. Equal sources give
#: equal bytes: no build id, no paths.
FLAGS = ("-std=c11", "-O2", "-fPIC", "-shared", "-nostdlib", "-g0", "-Wl,--build-id=none", "-s")
_SECONDS = 120


def compile_native(target: Path) -> bool:
    """Make `target`; False, and no word, where no compiler makes it."""
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    sources = sorted(path.name for path in SOURCES.glob("*.c"))
    if os.environ.get("LEAKCASE_NATIVE") == "0" or not sources or not shutil.which(compiler[0]):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.with_suffix(f".{os.getpid()}")
    command = [*compiler, *FLAGS, "-o", str(made), *sources]
    try:
        done = subprocess.run(
            command, cwd=SOURCES, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    if done.returncode:
        made.unlink(missing_ok=True)
        return False
    made.replace(target)
    return True


def wheel_tag() -> str:
    """Any Python 3 of this platform: the library does not know Python."""
    return "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # compiling in place needs no hatchling
    pass
else:

    class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
        """Puts the library into a wheel; an editable one finds it in place."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            if not SOURCES.is_dir():
                return
            if version == "editable":
                compile_native(IN_PLACE)
                return
            target = ROOT / "build" / "native" / str(os.getpid()) / "libleakcase.so"
            if compile_native(target):
                build_data["pure_python"] = False
                build_data["tag"] = wheel_tag()
                build_data["force_include"][str(target)] = IN_WHEEL

        def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
            shutil.rmtree(ROOT / "build" / "native" / str(os.getpid()), ignore_errors=True)


if __name__ == "__main__":
    made = compile_native(IN_PLACE)
    print(IN_PLACE if made else "there is no C compiler that makes it: Python does the same")
    sys.exit(0)
