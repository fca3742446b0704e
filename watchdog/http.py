"""What every HTTP client here needs: the credentials of a setting, its certificates, and an answer of bounded size."""

import ssl
from base64 import b64encode
from pathlib import Path

import aiohttp

from watchdog import __version__
from watchdog.config import Access
from watchdog.model import MANAGER

USER_AGENT = f"{MANAGER}/{__version__}"


def headers(access: Access) -> dict[str, str]:
    """What goes with every request; secrets are read anew each time, because they are rotated.

    Raises:
        OSError, ValueError: a file cannot be read, or is no text.
    """
    found = {"User-Agent": USER_AGENT, **access.headers}
    if access.bearer_token_file:
        found["Authorization"] = f"Bearer {_text(access.bearer_token_file)}"
    elif access.username:
        pair = f"{access.username}:{_text(access.password_file) if access.password_file else ''}"
        found["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    return found


def tls(access: Access) -> ssl.SSLContext | bool:
    """The certificates to check with and to show; True for the system's.

    Raises:
        OSError: they cannot be used.
    """
    if not (access.ca_file or access.cert_file):
        return True
    context = ssl.create_default_context(cafile=access.ca_file or None)
    if access.cert_file:
        context.load_cert_chain(access.cert_file, access.key_file or None)
    return context


async def read_at_most(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read a body to its end, or until it is longer than so many bytes."""
    raw = bytearray()
    async for chunk in response.content.iter_any():
        raw += chunk
        if len(raw) > limit:
            break
    return bytes(raw)


def _text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8").strip()
