"""What can go wrong with a case, as types.

Every message is one sentence: the thing, the cause, the next step.
"""

from __future__ import annotations


class BundleError(Exception):
    """Base of everything that this package raises on purpose."""


class NotACase(BundleError):
    """The file does not begin like a case."""


class NewerFormat(BundleError):
    """The case was written in a newer major format than this reader knows."""


class Damaged(BundleError):
    """Bytes that should be a frame or a record are not."""


class LimitExceeded(Damaged):
    """The case asks for more memory, nesting or length than the format allows."""


class SpecViolation(BundleError):
    """A writer tried to put something into a case that the format does not allow.

    This is a defect of the caller, never of the target: a raw string in a redacted field, a word
    outside its vocabulary, a float, a negative length.
    """


class CodecMissing(BundleError):
    """A frame is compressed by a codec whose library cannot be loaded here."""
