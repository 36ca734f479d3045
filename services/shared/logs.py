"""One log format for every process: readable on a terminal, JSON elsewhere."""

import logging
import sys

import structlog

from services.shared.settings import LogSettings


def configure_logs(process: str, settings: LogSettings) -> None:
    """Send structlog and the standard library's loggers to standard error, each line naming its process."""
    # Plain tracebacks: rich ones print every local, keys and customers included, and take seconds to draw.
    readable = settings.format == "terminal" or (settings.format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)]
        if readable
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.getLogger("stripe").setLevel(logging.WARNING)  # two lines a call, which our own say better
    structlog.contextvars.bind_contextvars(process=process)
