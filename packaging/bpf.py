"""Compiles the BPF programs of collector/bpf for each machine, by clang.

    python packaging/bpf.py [DIRECTORY]

What it makes is kept beside the sources and shipped, so that no host needs a compiler. Equal
sources and an equal clang give equal bytes; which clang that is stands in COMPILER.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "collector" / "bpf"
KEPT = ROOT / "collector" / "leakcase_collector" / "_bpf"
#: The first number of clang's version.
COMPILER = "14"
#: What Linux calls a machine, and what BPF sources have come to call it.
MACHINES = {"x86_64": "x86", "aarch64": "arm64"}
#: Nothing of this machine's gets in: no headers, no paths, no debugging. The instructions are
#: those without 32-bit arithmetic (v2), of which older verifiers lose the bounds: 6.1 did.
FLAGS = (
    "-target", "bpfel", "-mcpu=v2", "-O2", "-g0", "-Wall", "-Werror", "-ffreestanding",
    "-nostdinc", "-fno-ident", "-fno-addrsig",
)  # fmt: skip
_SECONDS = 120


def tool(name: str) -> str | None:
    """clang or a tool of its LLVM, of the version that is asked for where there are several."""
    return shutil.which(f"{name}-{COMPILER}") or shutil.which(name)


def compiler_version() -> str | None:
    """The first number of clang's version; None where there is no clang, or no llvm-strip."""
    clang = tool("clang")
    if clang is None or tool("llvm-strip") is None:
        return None
    said = subprocess.run(
        [clang, "-dumpversion"], capture_output=True, text=True, timeout=_SECONDS, check=True
    )
    return said.stdout.partition(".")[0].strip()


def build(target: Path) -> list[Path]:
    """Make an object for each machine in `target`; raises CalledProcessError, with clang's words
    on standard error.
    """
    target.mkdir(parents=True, exist_ok=True)
    made = []
    for machine, name in MACHINES.items():
        compiled = target / f"alloc-{machine}.o"
        partial = compiled.with_suffix(f".{os.getpid()}")
        command = [str(tool("clang")), *FLAGS, f"-D__TARGET_ARCH_{name}", "-c", "alloc.bpf.c"]
        subprocess.run([*command, "-o", str(partial)], cwd=SOURCES, check=True, timeout=_SECONDS)
        # The labels of jumps are half of the file, and nobody asks for them.
        strip = [str(tool("llvm-strip")), "--discard-all", str(partial)]
        subprocess.run(strip, check=True, timeout=_SECONDS)
        partial.replace(compiled)
        made.append(compiled)
    return made


def main() -> int:
    version = compiler_version()
    if version is None:
        print("bpf: clang or llvm-strip is missing. Install clang and llvm.", file=sys.stderr)
        return 1
    if version != COMPILER:
        print(f"bpf: this is clang {version}; the objects are made by {COMPILER}.", file=sys.stderr)
        return 1
    for path in build(Path(sys.argv[1]) if len(sys.argv) > 1 else KEPT):
        print(f"{path}: {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
