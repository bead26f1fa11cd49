"""Builds leakcase-collect.pyz: one file that any Python from 3.9 on runs, with nothing installed.

    python packaging/pyz.py dist/leakcase-collect.pyz

It holds the collector, its programs for the kernel, the format and the pure-Python half of msgpack
(compiled modules cannot be imported from a zip, so zlib compresses the case there). Equal sources
give equal bytes: the entries are sorted and their times are fixed.
"""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgpack

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    ROOT / "bundle_spec" / "leakcase_bundle",
    ROOT / "collector" / "leakcase_collector",
    Path(msgpack.__file__).parent,
)
SHEBANG = b"#!/usr/bin/env python3\n"
# Written so that an older Python can read it and say what it lacks.
MAIN = """\
import sys

if sys.version_info < (3, 9):
    sys.exit("leakcase-collect: this file needs Python 3.9 or newer; here is %d.%d. "
             "Run it with another python3, or use the ELF build." % sys.version_info[:2])
from leakcase_collector.cli import main
sys.exit(main())
"""
# 1980-01-01, the oldest time that a zip can hold.
_TIME = (1980, 1, 1, 0, 0, 0)


def entries() -> Iterator[tuple[str, bytes]]:
    """Names in the archive and their content, in the archive's order."""
    found = {"__main__.py": MAIN.encode(), "LICENSE": (ROOT / "LICENSE").read_bytes()}
    for package in PACKAGES:
        for path in [*package.rglob("*.py"), *package.glob("_bpf/*.o")]:
            found[str(path.relative_to(package.parent))] = path.read_bytes()
    yield from sorted(found.items())
    yield "msgpack/COPYING", msgpack_license()


def msgpack_license() -> bytes:
    """The licence that msgpack wants to travel with."""
    from importlib.metadata import files

    for file in files("msgpack") or ():
        if file.name == "COPYING":
            return Path(str(file.locate())).read_bytes()
    raise SystemExit("pyz: msgpack's COPYING is not installed beside it. Reinstall msgpack.")


def archive() -> bytes:
    """The whole file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
        for name, content in entries():
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            made.writestr(entry, content)
    return SHEBANG + buffer.getvalue()


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    content = archive()
    target.write_bytes(content)
    target.chmod(0o755)
    print(f"{target}: {len(content)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
