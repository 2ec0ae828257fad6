"""Logging: structlog, coloured on a terminal, one JSON object a line elsewhere; libraries' lines alike."""

import logging
import sys
from typing import TextIO

import structlog

LOGGED_LINES = 20  # of one kind in one run; the rest is counted
_LIBRARIES = ("rq.worker", "rq.job", "uvicorn", "uvicorn.error")


def configure(level: str, stream: TextIO = sys.stderr) -> None:
    """Set logging up for this process, once, at its start."""
    formatter = structlog.stdlib.ProcessorFormatter
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[structlog.typing.Processor] = [formatter.remove_processors_meta]
    if stream.isatty():  # the default's traceback shows tokens
        render.append(structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback))
    else:
        render += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(foreign_pre_chain=shared, processors=render))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _LIBRARIES:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request with its whole URL
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, formatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
