"""SHA-256 as CPython itself has it, of which `random` makes the same use.

`hashlib` would load OpenSSL's library for it: 4 MB of memory of a collector that has 25.
"""

from __future__ import annotations

try:
    from _sha2 import sha256  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found,unused-ignore]
    except ImportError:  # another Python's
        from hashlib import sha256

__all__ = ["sha256"]
