"""The case on disk and the private map beside it: created for the user, never over a file."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Any, Optional

from leakcase_bundle import Writer

from .errors import OutputError
from .system.ownership import create_private_file

MAP_SUFFIX = ".map"


class CaseFile:
    """An open case: records go in, whole frames reach the disk.

    Both files are mode 0600 and belong to the invoking user. After `OutputError` from `add` or
    `flush` the case on disk ends with its last whole frame, and nothing more can be added.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.map_path = path + MAP_SUFFIX
        self._descriptor = create_private_file(path)
        try:
            self._map_descriptor = create_private_file(self.map_path)
        except OutputError:
            os.close(self._descriptor)
            os.unlink(path)
            raise
        self.failed = False
        try:
            self._writer = Writer(self._descriptor)
        except OSError as error:
            self.discard()
            raise self._output_error(error) from error

    @property
    def written_bytes(self) -> int:
        """Size of the case on disk."""
        return self._writer.written_bytes

    @property
    def records(self) -> int:
        """Records on disk."""
        return self._writer.records

    def add(self, record: Any) -> None:
        """Keep one record for the next frame."""
        self._guarded(lambda: self._writer.add(record))

    def flush(self) -> None:
        """Put what was added into a frame on disk."""
        self._guarded(self._writer.flush)

    def finish(self) -> None:
        """Write the last frame; without it a reader calls the case truncated."""
        self._guarded(self._writer.finish)

    def write_map_line(self, line: bytes) -> None:
        """Append to the private map. A full disk costs the map's tail, not the capture."""
        with contextlib.suppress(OSError):
            os.write(self._map_descriptor, line)

    def close(self) -> None:
        """Close both files."""
        for name in ("_descriptor", "_map_descriptor"):
            descriptor: Optional[int] = getattr(self, name, None)
            if descriptor is not None:
                os.close(descriptor)
                setattr(self, name, None)

    def discard(self) -> None:
        """Close and remove both files: nothing worth keeping was written."""
        self.close()
        for path in (self.path, self.map_path):
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue

    def _guarded(self, write: Any) -> None:
        if self.failed:
            return
        try:
            write()
        except OSError as error:
            self.failed = True
            raise self._output_error(error) from error

    def _output_error(self, error: OSError) -> OutputError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return OutputError(
                f"cannot write {self.path}: the disk is full. "
                "Free some space or choose another place with -o."
            )
        return OutputError(
            f"cannot write {self.path}: {os.strerror(error.errno or 0)}. "
            "Choose another place with -o."
        )
