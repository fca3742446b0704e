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


class TooLarge(ValueError):  # noqa: N818  (reads as what happened)
    """Raised when an answer is longer than its limit; what was read of it is freed."""


async def read_at_most(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read a body to its end.

    Raises:
        TooLarge: it has more than so many bytes.
    """
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            chunks.clear()  # whoever keeps the error keeps this frame
            raise TooLarge(f"an answer of more than {limit >> 20} MiB")
    return b"".join(chunks)


def _text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8").strip()
