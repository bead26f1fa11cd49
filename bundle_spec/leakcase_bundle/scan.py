"""Finding the intact frames of a file that may be torn, damaged or hostile.

Work is linear in the file's size whatever it holds: bytes are searched once, a body that turned
out bad may be searched for lost frames only while `_RESCAN_FACTOR` times the file's size is not
used up, and what is decompressed counts against `max_content_bytes` before it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Optional

from .digest import sha256
from .encoding import decode_maps
from .errors import Damaged, NotACase
from .framing import (
    FORMAT_MINOR,
    HEADER_BYTES,
    HEADER_START,
    LAST,
    PROLOGUE_BYTES,
    RECORDS,
    FrameHeader,
    read_header,
    read_prologue,
    unpack_body,
)
from .schema import KIND_KEY

#: The kind of the one record in the last frame.
INDEX_KIND = "index"
INDEX_VERSION = 1

MAX_PROBLEMS = 100
_SCAN_BYTES = 1 << 16
_RESCAN_FACTOR = 8


@dataclass(frozen=True)
class Problem:
    """Something in the file that could not be read, and where (bytes from its start)."""

    offset: int
    message: str


@dataclass
class Problems:
    """The first `MAX_PROBLEMS` problems of a case, and how many there were."""

    listed: list[Problem] = field(default_factory=list)
    count: int = 0

    def note(self, offset: int, message: str) -> None:
        self.count += 1
        if len(self.listed) < MAX_PROBLEMS:
            self.listed.append(Problem(offset, message))


@dataclass(frozen=True)
class Frame:
    """One intact frame of records: where it lies, and its content still packed."""

    offset: int
    header: FrameHeader
    content: bytes


class FrameScan:
    """One pass over the frames of a case; what is wrong goes to `problems`.

    With `salvage` a file without an intact prologue is searched for frames too. Raises NotACase
    (not with `salvage`) and NewerFormat when made, CodecMissing while iterated.

    After the pass: `ended` tells whether a last frame was found; `digest_holds` whether its digest
    matched; `missing_frames` how many frames are known to be lost; `skipped_bytes` how many bytes
    belong to no intact frame; `index_records` how many records the index counts, where readable.
    """

    def __init__(
        self, file: BinaryIO, problems: Problems, max_content_bytes: int, salvage: bool = False
    ) -> None:
        self._file = file
        self._problems = problems
        self._max_content_bytes = max_content_bytes
        self.file_bytes = file.seek(0, os.SEEK_END)
        self._rescan_bytes = _RESCAN_FACTOR * self.file_bytes
        self._window = b""
        self._window_offset = 0
        self._expected = 0
        self._digest = sha256()
        self.minor = FORMAT_MINOR
        self.frames = 0
        self.content_bytes = 0
        self.skipped_bytes = 0
        self.missing_frames = 0
        #: False once something was noted that keeps the digest from matching anyway.
        self._chain_is_unbroken = True
        self.ended = False
        self.digest_holds = False
        self.index_records: Optional[int] = None
        self._first_frame_offset = self._read_prologue(salvage)

    def _read_prologue(self, salvage: bool) -> int:
        start = self._read(0, PROLOGUE_BYTES)
        try:
            self.minor = read_prologue(start)
        except NotACase as error:
            if not salvage:
                raise
            self._problems.note(0, str(error))
            self._chain_is_unbroken = False
            return self._skip_to_header(0, 0)
        self._digest.update(start)
        return PROLOGUE_BYTES

    def __iter__(self) -> Iterator[Frame]:
        offset = self._first_frame_offset
        while offset < self.file_bytes and not self.ended:
            header = self._header_at(offset)
            if header is None:
                offset = self._skip_to_header(offset, offset + 1)
                continue
            end = offset + HEADER_BYTES + header.stored_bytes
            if end > self.file_bytes:
                # The usual end of a collector that was killed: no problem, unless more follows.
                beyond = self._skip_to_header(offset, offset + HEADER_BYTES)
                if beyond < self.file_bytes:
                    self._problems.note(offset, "a frame claims more bytes than the file has")
                offset = beyond
                continue
            if not self._takes_its_turn(offset, header):
                self.skipped_bytes += end - offset
                offset = end
                continue
            self.content_bytes += header.raw_bytes
            if self.content_bytes > self._max_content_bytes:
                self._problems.note(offset, "the case holds more than a reader takes")
                self.skipped_bytes += self.file_bytes - offset
                return
            content = self._content(offset, header)
            if content is None:
                offset = self._after_bad_body(offset, header)
                continue
            if header.kind == RECORDS:
                self.frames += 1
                yield Frame(offset, header, content)
            offset = end
        if offset < self.file_bytes:
            self._problems.note(offset, "bytes follow the last frame")
            self.skipped_bytes += self.file_bytes - offset

    def _content(self, offset: int, header: FrameHeader) -> Optional[bytes]:
        """The unpacked content of a frame, or None where it is damaged (which is noted)."""
        stored = self._read(offset, HEADER_BYTES + header.stored_bytes)
        self.ended = header.kind == LAST
        try:
            content = unpack_body(header, stored[HEADER_BYTES:])
        except Damaged as error:
            self._problems.note(offset, f"frame {header.sequence}: {error}")
            if header.kind != LAST:
                self._lose(1)
            return None
        if header.kind == LAST:
            self._read_index(offset, content)
        self._digest.update(stored)
        return content

    def _header_at(self, offset: int) -> Optional[FrameHeader]:
        raw = self._read(offset, HEADER_BYTES)
        try:
            header = read_header(raw)
        except Damaged as error:
            self._problems.note(offset, str(error))
            return None
        if header is None and (len(raw) == HEADER_BYTES or not HEADER_START.startswith(raw[:8])):
            self._problems.note(offset, "no frame where one should begin")
        return header

    def _takes_its_turn(self, offset: int, header: FrameHeader) -> bool:
        """Compare a frame's number with the one that is due; False for a frame that came before."""
        due = self._expected
        if header.sequence < due:
            self._problems.note(
                offset, f"frame {header.sequence} comes again or too late; it was left out"
            )
            return False
        if header.sequence > due:
            lost = header.sequence - due
            self._lose(lost)
            which = f"frame {due} is" if lost == 1 else f"frames {due} to {header.sequence - 1} are"
            self._problems.note(offset, f"{which} missing")
        self._expected = header.sequence + 1
        return True

    def _lose(self, frames: int) -> None:
        self.missing_frames += frames
        self._chain_is_unbroken = False

    def _read_index(self, offset: int, content: bytes) -> None:
        try:
            index = next(decode_maps(content), {})
        except Damaged:
            index = {}
        if index.get(KIND_KEY) != INDEX_KIND:
            self._problems.note(offset, "the last frame holds no index")
            return
        records = index.get("records")
        if type(records) is int and records >= 0:
            self.index_records = records
        self.digest_holds = index.get("sha256") == self._digest.digest()
        if not self.digest_holds and self._chain_is_unbroken:
            self._problems.note(
                offset, "the digest does not match: frames were changed, lost or added"
            )

    # --- after damage ---------------------------------------------------------------------------

    def _after_bad_body(self, offset: int, header: FrameHeader) -> int:
        """Where to go on: bytes may have been lost, so that the next frame begins too early."""
        end = offset + HEADER_BYTES + header.stored_bytes
        self._rescan_bytes -= header.stored_bytes
        if header.kind == LAST or self._rescan_bytes < 0:
            self.skipped_bytes += end - offset
            return end
        return self._skip_to_header(offset, offset + HEADER_BYTES)

    def _skip_to_header(self, bad_from: int, search_from: int) -> int:
        """The next place that holds an intact header, or the end of the file."""
        found = self._find_header(search_from)
        self.skipped_bytes += found - bad_from
        return found

    def _find_header(self, start: int) -> int:
        while start < self.file_bytes:
            window = self._window_from(start)
            at = window.find(HEADER_START, start - self._window_offset)
            if at < 0 or at + HEADER_BYTES > len(window):
                # Windows overlap by a header less one byte: none is cut by two of them.
                past = self._window_offset + len(window) - HEADER_BYTES + 1
                if past <= start or self._window_offset + len(window) >= self.file_bytes:
                    return self.file_bytes
                start = past
                continue
            start = self._window_offset + at
            try:
                if read_header(window[at : at + HEADER_BYTES]) is not None:
                    return start
            except Damaged:
                pass
            start += 1
        return self.file_bytes

    def _window_from(self, start: int) -> bytes:
        """A stretch of the file that holds at least the header at `start`; kept between calls."""
        kept_to = self._window_offset + len(self._window)
        if not self._window_offset <= start <= kept_to - HEADER_BYTES:
            self._window = self._read(start, _SCAN_BYTES)
            self._window_offset = start
        return self._window

    def _read(self, offset: int, length: int) -> bytes:
        """Bytes of the file as it was when it was opened; a file that grows is no trouble."""
        self._file.seek(offset)
        return self._file.read(max(0, min(length, self.file_bytes - offset)))
