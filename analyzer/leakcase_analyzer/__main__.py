"""``python -m leakcase_analyzer``."""

import sys

from leakcase_analyzer.cli import main

sys.exit(main())
