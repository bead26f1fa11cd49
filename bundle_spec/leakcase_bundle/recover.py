"""A new whole case from what can still be read of a torn or damaged one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from .encoding import encode_map
from .reader import Reader
from .records import Loss
from .schema import TIME_COLUMN, to_map
from .writer import FrameWriter


@dataclass(frozen=True)
class Recovery:
    """What was written, and what is known to be lost (a torn end's loss is not known)."""

    records: int
    damaged_records: int
    missing_frames: int
    skipped_bytes: int
    was_truncated: bool
    is_lossy: bool


def recover(reader: Reader, descriptor: int) -> Recovery:
    """Copy every intact record, those of unknown kinds too, and say in a `Loss` what is missing.

    Nothing is written where nothing is readable: `Recovery.records` is 0 then. Raises OSError of
    the output, and what `Reader` raises.
    """
    writer: Optional[FrameWriter] = None
    newest_ns = 0
    copied = 0
    for _, raw, record in reader.decoded():
        if writer is None:
            writer = FrameWriter(descriptor, minor=reader.minor)
        writer.add_encoded(encode_map(raw))
        copied += 1
        newest_ns = max(newest_ns, _taken_ns(record))
    if writer is not None:
        lost = {"frames": reader.missing_frames, "records": reader.damaged_records}
        for what, count in lost.items():
            if count:
                loss = Loss(taken_ns=newest_ns, probe="session", what=what, count=count)
                writer.add_encoded(encode_map(to_map(loss)))
        writer.finish()
    return Recovery(
        records=copied,
        damaged_records=reader.damaged_records,
        missing_frames=reader.missing_frames,
        skipped_bytes=reader.skipped_bytes,
        was_truncated=reader.truncated,
        is_lossy=not reader.complete,
    )


def _taken_ns(record: Any) -> int:
    taken_ns = getattr(record, TIME_COLUMN, None)
    newest = taken_ns[-1] if isinstance(taken_ns, list) else taken_ns
    return 0 if newest is None else int(newest)
