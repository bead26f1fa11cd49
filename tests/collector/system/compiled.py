"""Small C programs that tests compile; each sleeps once it has allocated something."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

#: Prints a line when it has called malloc, then waits to be killed.
ALLOCATES = """
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(void) { printf("%d\\n", malloc(100) != 0); fflush(stdout); sleep(60); return 0; }
"""


def compiled(
    directory: Path,
    name: str,
    source: str = ALLOCATES,
    flags: Sequence[str] = (),
    compiler: str = "gcc",
    strip: bool = False,
) -> str:
    """The path of the compiled program; skips the test where the compiler is missing."""
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    program = str(directory / name)
    command = [compiler, "-O1", "-w", "-o", program, "-x", "c", "-", *flags]
    subprocess.run(command, input=source.encode(), check=True)
    if strip:
        subprocess.run(["strip", program], check=True)
    return program
