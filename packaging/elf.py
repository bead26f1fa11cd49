"""Builds leakcase-collect: one ELF file for hosts without Python, by PyInstaller.

    python packaging/elf.py dist/leakcase-collect

It needs a glibc no older than that of the machine that built it. Unpacks itself below TMPDIR.
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
from hatch_build import compile_native  # noqa: E402

ENTRY = ROOT / "packaging" / "elf_entry.py"
SOURCES = (ROOT / "bundle_spec", ROOT / "collector")
# Reached only on paths that the collector never takes: OpenSSL (hashlib has its own sha256), the
# codecs of East Asia and the second half of zstandard are the largest of them.
UNNEEDED = """
    _asyncio asyncio _bz2 bz2 cffi _codecs_cn _codecs_hk _codecs_iso2022 _codecs_jp _codecs_kr
    _codecs_tw concurrent curses _decimal decimal distutils doctest email ftplib _hashlib http
    lib2to3 _multibytecodec multiprocessing netrc optparse pdb pydoc queue readline
    sqlite3 ssl _ssl statistics tarfile tkinter unicodedata unittest xml xmlrpc zstandard._cffi
    zstandard.backend_cffi
""".split()


def build(target: Path, work: Path) -> None:
    """Run PyInstaller; raises CalledProcessError with its output shown."""
    # Equal sources should give equal bytes: the order in PyInstaller's archives follows hashes.
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    environment.setdefault("SOURCE_DATE_EPOCH", "1704067200")
    command = [sys.executable, "-m", "PyInstaller", "--onefile", "--strip", "--noupx", "--clean"]
    command += ["--noconfirm", "--log-level=ERROR", f"--name={target.name}"]
    command += [f"--distpath={work / 'dist'}", f"--workpath={work / 'work'}", f"--specpath={work}"]
    command += [f"--paths={path}" for path in SOURCES]
    command += [f"--exclude-module={name}" for name in UNNEEDED]
    library = work / "native" / "libleakcase.so"
    if compile_native(library):
        command.append(f"--add-binary={library}:leakcase_collector/_native")
    for compiled in sorted((ROOT / "collector" / "leakcase_collector" / "_bpf").glob("*.o")):
        command.append(f"--add-data={compiled}:leakcase_collector/_bpf")
    subprocess.run([*command, str(ENTRY)], check=True, env=environment, stdin=subprocess.DEVNULL)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(work / "dist" / target.name, target)


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    if shutil.which("objdump") is None or shutil.which("strip") is None:
        print("elf: objdump and strip are missing. Install binutils.", file=sys.stderr)
        return 1
    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="leakcase-elf-") as work:
        build(target, Path(work))
    print(f"{target}: {target.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
