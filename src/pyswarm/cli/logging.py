"""The daemon's log: `key=value` lines on stderr, one per event, a traceback below its line. gRPC's own chatter is kept out."""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

LEVELS = {
    "panic": logging.CRITICAL,
    "fatal": logging.CRITICAL,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG,
}
"""What --log-level takes, in any case."""


def quiet_grpc() -> None:
    """Keep gRPC's C core from writing to stderr. Only works before grpc is imported; a variable set by the operator wins."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def configure(level: str, stream: TextIO | None = None) -> None:
    """Log events of `level` (a key of `LEVELS`) and above to `stream`, stderr by default. May be called again."""
    threshold = LEVELS[level.lower()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("msg"),
            _Renderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Forwarder)]:
        root.removeHandler(handler)
    root.addHandler(_Forwarder())
    root.setLevel(max(threshold, logging.WARNING))
    # It logs a traceback for each call that ends with an error status, which is ordinary life here.
    logging.getLogger("grpc").setLevel(logging.CRITICAL + 1)


class _Renderer:
    """One line of `key=value`, known keys first; a traceback follows as it is."""

    def __init__(self) -> None:
        self._line = structlog.processors.LogfmtRenderer(
            sort_keys=True, key_order=["time", "level", "msg"], drop_missing=True, bool_as_flag=False
        )

    def __call__(self, logger: WrappedLogger, name: str, event: EventDict) -> str:
        """The text to print."""
        traceback = event.pop("exception", "")
        clean = {key.replace(" ", "_"): value for key, value in event.items()}
        line = self._line(logger, name, clean)
        return f"{line}\n{traceback}" if traceback else line


class _Forwarder(logging.Handler):
    """What libraries log the old way, in the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log it again."""
        level = {"CRITICAL": "critical", "ERROR": "error", "WARNING": "warning", "INFO": "info"}.get(record.levelname, "debug")
        fields = {"exc_info": record.exc_info} if record.exc_info else {}
        getattr(structlog.get_logger(), level)(record.getMessage(), module=record.name, **fields)
