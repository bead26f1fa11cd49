"""Makes the scripts of bundle_spec/ importable, behind whatever leakcase_bundle is installed."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "bundle_spec"))
