"""Writing a case, frame by frame, so that a kill at any byte costs at most the last frame."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Optional

from .codecs import Codec, preferred_codec
from .digest import sha256
from .encoding import MAX_ARRAY_LENGTH, MAX_FRAME_BYTES, encode_map
from .errors import SpecViolation
from .framing import FORMAT_MINOR, LAST, MAX_RECORDS_PER_FRAME, RECORDS, pack_frame, prologue
from .scan import INDEX_KIND, INDEX_VERSION
from .schema import KIND_KEY, VERSION_KEY, to_map

#: Frames are cut here; a quarter of the limit leaves room for one large record.
_FRAME_TARGET_BYTES = MAX_FRAME_BYTES // 4


class FrameWriter:
    """Writes encoded records to an open file descriptor; the caller opened it and closes it.

    It trusts its caller: `Writer` checks records first, `leakcase_bundle.recover` hands on what
    came out of a case. OSError (a full disk) passes to the caller after the file was cut back to
    its last whole frame; the records that were kept for the failed frame are lost, and `finish`
    may still make the file whole.
    """

    def __init__(
        self, descriptor: int, codec: Optional[Codec] = None, minor: int = FORMAT_MINOR
    ) -> None:
        self._descriptor = descriptor
        self._codec = codec or preferred_codec()
        self._digest = sha256()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._frame_bytes: list[int] = []
        self._finished = False
        self.records = 0
        self.written_bytes = 0
        self._put(prologue(minor))

    def add_encoded(self, encoded: bytes) -> None:
        """Keep one encoded record for the next frame; writes a frame when enough are kept."""
        if self._finished:
            raise SpecViolation("a record was added to a case that is finished")
        if self._pending_bytes + len(encoded) > _FRAME_TARGET_BYTES or (
            len(self._pending) >= MAX_RECORDS_PER_FRAME
        ):
            self.flush()
        self._pending.append(encoded)
        self._pending_bytes += len(encoded)

    def flush(self) -> None:
        """Write what was added since the last flush as one frame."""
        if not self._pending:
            return
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        frame = pack_frame(
            self._codec, RECORDS, len(self._frame_bytes), len(pending), b"".join(pending)
        )
        self._put(frame)
        self._frame_bytes.append(len(frame))
        self.records += len(pending)

    def finish(self) -> None:
        """Flush, then write the index and the digest over everything before them."""
        if self._finished:
            return
        self.flush()
        index = {
            KIND_KEY: INDEX_KIND,
            VERSION_KEY: INDEX_VERSION,
            "frames": len(self._frame_bytes),
            "records": self.records,
            # Long cases have more frames than an array may hold: the newest are listed then.
            "frame_bytes": self._frame_bytes[-MAX_ARRAY_LENGTH:],
            "sha256": self._digest.digest(),
        }
        self._put(pack_frame(self._codec, LAST, len(self._frame_bytes), 1, encode_map(index)))
        self._finished = True

    def _put(self, data: bytes) -> None:
        start = self.written_bytes
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            # A torn frame would cost nothing but confusion: leave only whole ones.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, start)
                os.lseek(self._descriptor, start, os.SEEK_SET)
            raise
        self._digest.update(data)
        self.written_bytes += len(data)


class Writer(FrameWriter):
    """Writes records: `add` keeps one in memory, `flush` puts all kept ones into one frame on disk,
    `finish` writes the last frame. See `FrameWriter` for what happens on a full disk.
    """

    def add(self, record: Any) -> None:
        """Check and keep one record for the next frame; raises SpecViolation."""
        self.add_encoded(encode_map(to_map(record)))
