"""The log on standard error: JSON lines for machines, short text for a person at a terminal."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

from watchdog.config import Log, LogFormat

FIELDS: Final = ("event", "incident", "workload", "guard", "verdict", "user")


class JsonLines(logging.Formatter):
    """One JSON object per record, with the fields that the record carries."""

    def format(self, record: logging.LogRecord) -> str:
        """Encode a record in ASCII, so that no control character of a foreign text reaches a terminal."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {field: value for field in FIELDS if (value := getattr(record, field, None)) is not None}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def set_up(settings: Log) -> None:
    """Start logging. At a terminal `auto` shows only problems, since the command itself tells what it does."""
    handler = logging.StreamHandler(sys.stderr)
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    watched = settings.format is LogFormat.AUTO and sys.stderr.isatty()
    if watched or settings.format is LogFormat.TEXT:
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    else:
        handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("watchdog").setLevel(max(level, logging.WARNING) if watched else level)
