"""The format where C extensions cannot be loaded: msgpack in pure Python, no zstd."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tests.bundle.shared import NAMES, ROOT, VECTORS, vector

WITHOUT_ZSTANDARD = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "zstandard":
            raise ImportError("not here")
sys.meta_path.insert(0, Absent())
"""
READ = """
import io, json, sys
from leakcase_bundle import BundleError, Reader
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        try:
            reader = Reader(file)
            kinds = [type(record).__name__ for record in reader]
        except BundleError as error:
            print(json.dumps([type(error).__name__, str(error)]))
        else:
            print(json.dumps([kinds, reader.complete, [p.message for p in reader.problems]]))
"""
EXPECTATIONS = """
import json, msgpack, sys
assert msgpack.Unpacker.__module__ == "msgpack.fallback", msgpack.Unpacker.__module__
sys.path.append(sys.argv[1])
import make_vectors
from pathlib import Path
for name in sys.argv[2:]:
    content = (make_vectors.FOLDER / (name + ".leakcase")).read_bytes()
    print(json.dumps(make_vectors.expectation(content)))
"""


def lines_of(program: str, *arguments: str, **environment: str) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_with_msgpack_in_pure_python_every_vector_reads_the_same() -> None:
    found = lines_of(EXPECTATIONS, str(ROOT / "bundle_spec"), *NAMES, MSGPACK_PUREPYTHON="1")
    assert len(found) == len(NAMES)
    for name, reading in zip(NAMES, found):
        said = json.loads((VECTORS / f"{name}.json").read_text("utf-8"))
        del said["about"], said["library_made"]
        assert reading == said, name


def test_with_msgpack_in_pure_python_hostile_cases_stay_in_bounds() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "fuzz_reader.py"), "--count", "400", "--seed", "2"],
        capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
             "MSGPACK_PUREPYTHON": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_zstd_a_zlib_case_reads_and_a_zstd_case_says_what_to_install() -> None:
    zlib_case, zstd_case, mixed, refused = lines_of(
        WITHOUT_ZSTANDARD + READ,
        *(str(VECTORS / f"{n}.leakcase") for n in ("whole-zlib-compressed", "whole-zstd",
                                                   "mixed-codecs", "newer-major")),
    )  # fmt: skip
    assert zlib_case == [["Gap", "StatusSeries", "StatusSeries", "CaseEnd"], True, []]
    assert zstd_case == mixed
    assert zstd_case[0] == "CodecMissing"
    assert "install the package 'zstandard'" in zstd_case[1]
    assert refused[0] == "NewerFormat"


def test_without_zstd_a_writer_uses_zlib_and_anyone_can_read_it() -> None:
    program = WITHOUT_ZSTANDARD + (
        "import json, os\n"
        "from leakcase_bundle import Writer, records\n"
        "fd = os.memfd_create('case')\n"
        "writer = Writer(fd)\n"
        "writer.add(records.CaseEnd(taken_ns=1, reason='duration'))\n"
        "writer.finish()\n"
        "print(json.dumps(os.pread(fd, 1 << 20, 0).hex()))\n"
    )
    from leakcase_bundle.records import CaseEnd
    from tests.bundle.shared import read

    (written,) = lines_of(program)
    records, reader = read(bytes.fromhex(written))
    assert records == [CaseEnd(taken_ns=1, reason="duration")]
    assert reader.complete
    assert bytes.fromhex(written)[29] == 1  # the codec of the first frame, SPEC.md 1.2


def test_the_vectors_of_zstd_are_there_to_be_missed() -> None:
    assert vector("whole-zstd")[29] == 2
