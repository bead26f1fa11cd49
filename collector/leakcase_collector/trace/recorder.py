"""What a traced capture hands its findings to; a probe's context is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional, Protocol

if TYPE_CHECKING:
    from leakcase_collector.errors import CollectorError
    from leakcase_collector.redact import Redactor


class Recorder(Protocol):
    """The part of a probe's context that tracing needs."""

    @property
    def redactor(self) -> Redactor: ...

    @property
    def pid(self) -> int: ...

    @property
    def interval_ns(self) -> int: ...

    def emit(self, record: Any) -> None: ...

    def gap(self, error: CollectorError, detail: Optional[str] = None) -> None: ...

    def loss(self, what: str, count: int) -> None: ...
