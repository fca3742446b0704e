"""`python -m agent_api`: serve until SIGTERM."""

import logging
import os
import sys

from aiohttp import web

from agent_api.server import serve
from agent_api.settings import Settings, SettingsError


def main() -> int:
    """Serve; 2 with the cure on stderr when a setting is missing or wrong."""
    try:
        settings = Settings.read(os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # The libraries log whole requests at DEBUG: headers, and what people wrote.
    for name in ("openai", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(max(logging.INFO, logging.getLogger().level))
    # Longer than the slowest answer takes, and shorter than the pod's terminationGracePeriodSeconds.
    web.run_app(
        serve(settings), host=settings.host, port=settings.port, shutdown_timeout=40, print=None, access_log=None
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
