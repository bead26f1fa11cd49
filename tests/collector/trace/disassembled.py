"""What objdump says of code: the judge of our decoders."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_LINE = re.compile(r"^\s*([0-9a-f]+):\t((?:[0-9a-f]{2} )+)\s*\t?(.*)$")
_JUMP = re.compile(r"^(?:j\w+|call)\s+([0-9a-f]+)(?: <|$)")
#: objdump prints prefixes that it cannot place as instructions of their own.
_PREFIX = re.compile(r"^(?:[c-gs]s|lock|data16|addr32|repn?z|rex[.WRXB]*)$")


class Line(NamedTuple):
    address: int
    code: bytes
    text: str

    @property
    def target(self) -> int | None:
        """Where a direct jump or call goes."""
        match = _JUMP.match(self.text)
        return int(match[1], 16) if match else None


def disassembled(path: str, *arguments: str, tool: Sequence[str] = ("objdump",)) -> Iterator[Line]:
    """Each instruction; lone prefixes are put before what they belong to."""
    command = [*tool, "--disassemble", "--wide", *arguments, path]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    before: Line | None = None
    for row in output.splitlines():
        match = _LINE.match(row)
        if not match:
            before = None
            continue
        line = Line(int(match[1], 16), bytes.fromhex(match[2]), match[3].strip())
        if before is not None:
            line = Line(before.address, before.code + line.code, line.text)
            before = None
        if _PREFIX.match(line.text):
            before = line
            continue
        yield line


def function_addresses(path: str) -> dict[str, tuple[int, int]]:
    """Address and size of each function that the file's symbols name, by nm, version cut off."""
    found = {}
    for option in ("--dynamic", "--debug-syms"):
        listed = subprocess.run(
            ["nm", option, "--print-size", "--defined-only", path], capture_output=True, text=True
        )
        for row in listed.stdout.splitlines():
            fields = row.split()
            if len(fields) == 4 and fields[2] in "tTwWi":
                name = fields[3].partition("@")[0]
                found[name] = int(fields[0], 16), int(fields[1], 16)
    return found
