"""The allocators' libraries as Debian installs them, and the functions that they are known for."""

from __future__ import annotations

from pathlib import Path

import pytest

_DEBIAN = Path("/usr/lib/x86_64-linux-gnu")
LIBRARIES = {
    "glibc": (_DEBIAN / "libc.so.6", "libc6"),
    "musl": (Path("/usr/lib/x86_64-linux-musl/libc.so"), "musl-tools"),
    "jemalloc": (_DEBIAN / "libjemalloc.so.2", "libjemalloc2"),
    "tcmalloc": (_DEBIAN / "libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"),
    "mimalloc": (_DEBIAN / "libmimalloc.so.2", "libmimalloc2.0"),
    "libstdc++": (_DEBIAN / "libstdc++.so.6", "libstdc++6"),
}
PRELOADED = ("jemalloc", "tcmalloc", "mimalloc")
FUNCTIONS = (
    "malloc calloc realloc reallocarray memalign aligned_alloc posix_memalign valloc pvalloc free "
    "cfree mmap munmap mremap _Znwm _Znam _ZdlPv _ZdlPvm _ZdaPv _ZdaPvm _ZnwmSt11align_val_t "
    "_ZdlPvSt11align_val_t mallocx rallocx sdallocx dallocx mi_malloc mi_realloc tc_malloc tc_free"
).split()


def library(name: str) -> str:
    """Its path; skips the test where it is not installed."""
    path, package = LIBRARIES[name]
    if not path.exists():
        pytest.skip(f"{path} is not there: install {package}")
    return str(path)
