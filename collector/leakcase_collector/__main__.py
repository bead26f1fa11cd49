"""``python -m leakcase_collector``, and the entry of the zipapp."""

import sys

from leakcase_collector.cli import main

sys.exit(main())
