"""Opening a case and writing a report, with every failure told in one sentence."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from leakcase_analyzer.errors import OutputProblem, UnreadableCase
from leakcase_bundle.errors import BundleError, NotACase


@contextlib.contextmanager
def open_case(path: Path) -> Iterator[BinaryIO]:
    """The case's file; raises UnreadableCase also for what reading it later finds wrong."""
    try:
        # A FIFO would wait for a writer for ever; a device might do anything.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnreadableCase(
                    f"cannot read {path}: it is not a regular file. Name another file."
                )
            yield file
    except NotACase as error:
        raise UnreadableCase(
            f"cannot read {path}: {error}. A case is made with leakcase-collect capture."
        ) from error
    except BundleError as error:
        raise UnreadableCase(f"cannot read {path}: {error}.") from error
    except (OSError, ValueError) as error:
        raise UnreadableCase(f"cannot read {path}: {_cause(error)}. Name another file.") from error


def write_report(path: Path, text: str, *, force: bool) -> None:
    """Write a new file of text."""
    write_bytes(path, text.encode("utf-8", "replace"), force=force)


def write_bytes(path: Path, content: bytes, *, force: bool) -> None:
    """Write a new file; with `force` an existing one is replaced, but never through a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    flags |= os.O_TRUNC if force else os.O_EXCL
    try:
        descriptor = os.open(path, flags, 0o666)
        with open(descriptor, "wb") as file:
            file.write(content)
    except FileExistsError as error:
        raise OutputProblem(
            f"cannot write {path}: it exists. Replace it with --force, or name another with -o."
        ) from error
    except (OSError, ValueError) as error:
        raise OutputProblem(
            f"cannot write {path}: {_cause(error)}. Name another file with -o."
        ) from error


def print_result(text: str) -> None:
    """Print to stdout; a reader that went away (``| head``) is no failure."""
    _print(lambda: sys.stdout.write(text))


def print_bytes(content: bytes) -> None:
    """The same for what is no text."""
    _print(lambda: sys.stdout.buffer.write(content))


def _print(write: Callable[[], int]) -> None:
    try:
        write()
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer goes nowhere, so that the interpreter's exit stays quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise OutputProblem(
                f"cannot print the result: {_cause(error)}. Send it elsewhere."
            ) from error


def _cause(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else None
    return (text or str(error)).lower()
