"""Feeds the reader hostile cases: `make fuzz`, or `python bench/fuzz_reader.py --count 3000`.

Inputs are made from the format's test vectors and from longer cases: torn, changed, spliced, and,
so that they get past the checksums, with contents and headers changed and all checksums mended.
Input N of a seed is always the same, so that `--start N --count 1` repeats a failure.

For every input: nothing is raised but NotACase and NewerFormat; it takes at most TIME_LIMIT_S of
CPU time; all of them together fit in MEMORY_LIMIT_BYTES of address space; bytes read are a small
multiple of the file's size; what was recovered from it is a whole case.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Optional

import msgpack

from leakcase_bundle import NewerFormat, NotACase, Reader, Writer, records
from leakcase_bundle.codecs import CODECS
from leakcase_bundle.encoding import decode_maps
from leakcase_bundle.errors import BundleError
from leakcase_bundle.framing import (
    HEADER_BYTES,
    HEADER_START,
    PROLOGUE_BYTES,
    pack_frame,
    read_header,
    unpack_body,
)
from leakcase_bundle.recover import recover
from leakcase_bundle.schema import record_kinds

VECTORS = Path(__file__).resolve().parent.parent / "bundle_spec" / "vectors"
TIME_LIMIT_S = 2.0
MEMORY_LIMIT_BYTES = 300 << 20
#: Once for the search, once for headers, eight times for damaged bodies, and small change.
READ_FACTOR = 12
READ_CONSTANT = 1 << 18


class TookTooLong(Exception):
    """An input used up its time."""


class CountedFile(io.BytesIO):
    """Counts the bytes that are read from it."""

    read_bytes = 0

    def read(self, size: Optional[int] = -1, /) -> bytes:
        out = super().read(size)
        self.read_bytes += len(out)
        return out


# --- making inputs ------------------------------------------------------------------------------


def long_case(codec: int, frames: int, seed: int) -> bytes:
    """A case as a collector writes it."""
    rng = random.Random(seed)
    with tempfile.TemporaryFile() as file:
        writer = Writer(file.fileno(), CODECS[codec])
        for frame in range(frames):
            times: list[Optional[int]] = [10**9 * (10 * frame + n) for n in range(10)]
            rss: list[Optional[int]] = [rng.randrange(1 << 30) for _ in times]
            writer.add(records.StatusSeries(taken_ns=times, rss_bytes=rss))
            writer.add(records.Gap(taken_ns=10**10 * frame, probe="regions", reason="failed"))
            writer.flush()
        writer.add(records.CaseEnd(taken_ns=10**12, reason="duration"))
        writer.finish()
        file.seek(0)
        return file.read()


def seeds() -> list[bytes]:
    """What inputs are made from."""
    cases = [path.read_bytes() for path in sorted(VECTORS.glob("*.leakcase"))]
    return cases + [long_case(codec, 12, codec) for codec in CODECS]


def frame_offsets(case: bytes) -> list[int]:
    """Where intact headers stand."""
    found = []
    at = case.find(HEADER_START)
    while at >= 0:
        found.append(at)
        at = case.find(HEADER_START, at + 1)
    return found


def change_bytes(rng: random.Random, data: bytes) -> bytes:
    """A few bytes set, inserted, removed or repeated."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(out) + 1)
        span = rng.choice((1, 1, 2, 4, 8, 60, 500))
        what = rng.randrange(5)
        if what == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            out[at : at + span] = rng.randbytes(min(span, len(out) - at))
        elif what == 2:
            del out[at : at + span]
        elif what == 3:
            out[at:at] = rng.choice((rng.randbytes(span), b"\xff" * span, HEADER_START * 2))
        else:
            out[at:at] = out[at : at + span]
    return bytes(out)


def change_header(rng: random.Random, case: bytes) -> bytes:
    """One number of a header replaced, its checksum mended."""
    offsets = frame_offsets(case)
    if not offsets:
        return change_bytes(rng, case)
    at = rng.choice(offsets)
    header = bytearray(case[at : at + HEADER_BYTES])
    if len(header) < HEADER_BYTES:
        return case[:at]
    place, size = rng.choice(((8, 1), (9, 1), (10, 2), (12, 4), (16, 4), (20, 4), (24, 4), (28, 4)))
    number = rng.choice((0, 1, 2, 3, 255, 65_536, 1 << 20, (1 << 20) + 1, 0xFFFFFFFF))
    header[place : place + size] = number.to_bytes(8, "little")[:size]
    header[-4:] = struct.pack("<I", zlib.crc32(header[:-4]))
    return case[:at] + bytes(header) + case[at + HEADER_BYTES :]


def change_content(rng: random.Random, case: bytes) -> bytes:
    """The content of a frame replaced, in a frame whose checksums hold."""
    for at in rng.sample(offsets := frame_offsets(case), len(offsets)):
        try:
            header = read_header(case[at : at + HEADER_BYTES])
            if header is None:
                continue
            end = at + HEADER_BYTES + header.stored_bytes
            content = unpack_body(header, case[at + HEADER_BYTES : end])
        except BundleError:
            continue
        declared = header.records
        if rng.random() < 0.02:
            content = flood(rng)
        elif rng.random() < 0.5 or len(content) > 1 << 17:
            content = change_bytes(rng, content)[: 1 << 20]
        else:
            content = b"".join(change_map(rng, raw) for raw in readable_maps(content))
        if rng.random() < 0.1:
            declared = rng.choice((0, 1, declared + 1, 65_536))
        codec = CODECS[rng.choice(tuple(CODECS))]
        frame = pack_frame(codec, header.kind, header.sequence, declared, content)
        return case[:at] + frame + case[end:]
    return change_bytes(rng, case)


def flood(rng: random.Random) -> bytes:
    """A mebibyte of the smallest things there are: little in the file, much in memory."""
    head, thing = rng.choice(
        (
            (b"", b"\x80"),
            (b"", b"\x81\xa6record\xa1x"),
            (b"\x81\xa1a\xdd\x00\x01\x00\x00", b"\x90"),
            (b"\x81\xa1a\xdd\x00\x01\x00\x00", b"\x80"),
            (b"\x81\xa1a\xdd\x00\x01\x00\x00", b"\xdd\x00\x00\xff\xff" + b"\x90" * 60_000),
            (b"\xde\x01\x00", b"\xa1a\xdc\x0f\x00" + b"\x90" * 0x0F00),
        )
    )
    return (head + thing * ((1 << 20) // len(thing)))[: 1 << 20]


def readable_maps(content: bytes) -> list[dict[str, Any]]:
    """The records of a content up to the first that cannot be decoded."""
    out = []
    try:
        for raw in decode_maps(content):
            out.append(raw)
    except BundleError:
        pass
    return out


def change_map(rng: random.Random, raw: dict[str, Any]) -> bytes:
    """A record with values of the wrong type, size or kind, as msgpack."""
    changed = dict(raw)
    for _ in range(rng.choice((1, 1, 2, 3))):
        key = rng.choice((*changed, "record", "later"))
        changed[key] = odd_value(rng)
    packer = msgpack.Packer(autoreset=False)
    packer.pack_map_header(len(changed))
    out = bytearray(packer.bytes())
    for key, value in changed.items():
        out += msgpack.packb(key)
        out += value if isinstance(value, Encoded) else msgpack.packb(value)
    return bytes(out)


class Encoded(bytes):
    """Bytes that stand for a value as they are."""


def odd_value(rng: random.Random) -> Any:
    """Something that a field might not expect."""
    choices: tuple[Callable[[], Any], ...] = (
        lambda: None,
        lambda: rng.choice((True, False)),
        lambda: rng.choice((0, -1, 1 << 62, -(1 << 63), (1 << 63) - 1, 1 << 63, (1 << 64) - 1)),
        lambda: rng.choice(tuple(record_kinds())),
        lambda: rng.choice(("", "\x1b[2J", "x" * 600, "\u202e", "../../etc", "index", "<dir:1>")),
        lambda: rng.randbytes(rng.randrange(40)),
        lambda: rng.random(),
        lambda: [rng.choice((1, "x", b"x", None, True, 0.5, [])) for _ in range(rng.randrange(6))],
        lambda: [rng.randrange(-(1 << 63), 1 << 63) for _ in range(rng.randrange(40))],
        lambda: [rng.choice((0, 1, None)) for _ in range(10)],
        lambda: {"a": 1} if rng.random() < 0.5 else {1: 2},
        lambda: Encoded(rng.choice((b"\x91", b"\x81\xa1a")) * rng.choice((2, 500, 1_100, 9_000))),
        lambda: Encoded(rng.choice((b"\xdd", b"\xdf", b"\xdb", b"\xc6")) + b"\xff" * 4),
        lambda: msgpack.ExtType(rng.randrange(128), rng.randbytes(rng.randrange(9))),
        lambda: msgpack.Timestamp(rng.randrange(1 << 33), 5),
    )
    return rng.choice(choices)()


def splice(rng: random.Random, case: bytes, other: bytes) -> bytes:
    """The beginning of one and the end of another, often cut at their frames."""
    cuts = [(rng.choice(frame_offsets(c) or [PROLOGUE_BYTES])) for c in (case, other)]
    if rng.random() < 0.3:
        cuts = [rng.randrange(len(case) + 1), rng.randrange(len(other) + 1)]
    return case[: cuts[0]] + other[cuts[1] :]


def make_input(number: int, seed: int, cases: list[bytes]) -> bytes:
    """Input `number` of a seed."""
    rng = random.Random(seed << 32 | number)
    data = rng.choice(cases)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        what = rng.randrange(8)
        if what <= 2:
            data = change_content(rng, data)
        elif what <= 4:
            data = change_header(rng, data)
        elif what == 5:
            data = splice(rng, data, rng.choice(cases))
        elif what == 6:
            data = data[: rng.randrange(len(data) + 1)]
        else:
            data = change_bytes(rng, data)
    return data


# --- reading them -------------------------------------------------------------------------------


def fault_of(data: bytes) -> Optional[str]:
    """What is wrong with the reading of an input, or None."""
    signal.setitimer(signal.ITIMER_PROF, TIME_LIMIT_S)
    try:
        return fault_of_reading(data) or fault_of_recovery(data)
    except (NotACase, NewerFormat):
        return None
    except Exception as error:  # noqa: BLE001  any other exception is what we look for
        return f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def fault_of_reading(data: bytes) -> Optional[str]:
    file = CountedFile(data)
    reader = Reader(file)
    for _ in reader:
        pass
    if file.read_bytes > READ_FACTOR * len(data) + READ_CONSTANT:
        return f"{file.read_bytes} bytes were read of a file of {len(data)}"
    if reader.skipped_bytes > len(data):
        return "more bytes were skipped than there are"
    if reader.complete and (reader.problems or reader.truncated or reader.skipped_bytes):
        return "called complete, with problems"
    if not (reader.complete or reader.truncated or reader.problems):
        return "neither complete nor truncated, and no problem named"
    return None


def fault_of_recovery(data: bytes) -> Optional[str]:
    descriptor = os.memfd_create("recovered")
    with open(descriptor, "rb") as file:
        recovery = recover(Reader(io.BytesIO(data), salvage=True), descriptor)
        if not recovery.records:
            return None
        again = Reader(file)
        count = sum(1 for _ in again.decoded())
    if not again.complete:
        return f"what was recovered is not whole: {again.problems}"
    added = bool(recovery.missing_frames) + bool(recovery.damaged_records)
    if count != recovery.records + added:
        return f"{recovery.records} records were recovered and {count} read back"
    return None


def run(start: int, count: int, seed: int) -> list[int]:
    """Feed inputs; the numbers of those that failed."""
    cases = seeds()
    failed = []
    slowest = 0.0
    begin = time.monotonic()
    for number in range(start, start + count):
        data = make_input(number, seed, cases)
        before = time.process_time()
        fault = fault_of(data)
        slowest = max(slowest, time.process_time() - before)
        if fault is not None:
            failed.append(number)
            print(f"input {number} of seed {seed}: {fault}", file=sys.stderr)
            if len(failed) == 20:
                break
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{number + 1 - start} inputs in {time.monotonic() - begin:.1f} s, {len(failed)} failed; "
        f"slowest {slowest * 1000:.0f} ms, peak memory {peak_mib:.0f} MiB"
    )
    return failed


def _time_is_up(_signal: int, _frame: Optional[FrameType]) -> None:
    raise TookTooLong(f"more than {TIME_LIMIT_S} s of CPU time")


def main() -> int:
    parser = argparse.ArgumentParser(description="Feed the reader hostile cases.")
    parser.add_argument("--count", type=int, default=100_000, help="how many inputs")
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    # A hang inside a C library never returns to the handler of the alarm.
    faulthandler.dump_traceback_later(60 + options.count // 100, exit=True)
    signal.signal(signal.SIGPROF, _time_is_up)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    return 1 if run(options.start, options.count, options.seed) else 0


if __name__ == "__main__":
    sys.exit(main())
