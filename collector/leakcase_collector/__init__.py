"""The collector: runs on the host that has the problem and writes one redacted case."""

__version__ = "0.1.0"
