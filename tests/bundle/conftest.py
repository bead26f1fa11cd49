"""Makes the scripts of bundle_spec/ importable, behind whatever leakcase_bundle is installed."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

sys.path.append(str(Path(__file__).resolve().parents[2] / "bundle_spec"))

# A busy machine is no defect of the format: what takes too long is measured in CPU time elsewhere.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
