"""The entry of the one-file ELF build of leakcase-collect.

Its first process unpacks the second, which does the work. When the first one is killed, the second
is asked to stop (prctl(2), PR_SET_PDEATHSIG), so that it writes the last frame of its case.
"""

from __future__ import annotations

import ctypes
import signal
import sys

from leakcase_collector.cli import main

_PR_SET_PDEATHSIG = 1

ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
sys.exit(main())
