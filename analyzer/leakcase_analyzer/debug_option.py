"""The option ``--debug-info`` of the commands that name code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional, TypeAlias

import typer

DebugInfo: TypeAlias = Annotated[
    Optional[list[Path]],
    typer.Option(
        "--debug-info",
        metavar="DIR",
        help="Where binaries or their debug files are, for source lines; may be repeated.",
    ),
]
