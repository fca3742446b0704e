"""The way to a Prometheus: a form posted, an answer read. The API server's service proxy is another such way."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

import aiohttp
import msgspec

from watchdog.config import Access
from watchdog.errors import ConfigError
from watchdog.http import TooLarge, headers, read_at_most, tls

LONGEST_BODY = 64 << 20


class Unreachable(Exception):  # noqa: N818  (reads as what happened)
    """Raised when no answer came and asking again makes sense; the text says why, in a line without secrets."""


class HttpAnswer(msgspec.Struct, frozen=True):
    """An HTTP answer of any status. `date` is its header of that name, empty without one."""

    status: int
    body: bytes
    date: str = ""


class Send(Protocol):
    """A way to one Prometheus."""

    async def __call__(self, path: str, form: Mapping[str, str], *, timeout_s: float) -> HttpAnswer:
        """Post a form, follow no redirect, and give whatever answer comes.

        Args:
            path: the API's path without the prefix of the URL, such as ``/api/v1/query``.
            form: its fields.
            timeout_s: seconds that are left; the caller cancels after them.

        Returns:
            The answer.

        Raises:
            Unreachable: there is none.
            TooLarge: it is longer than `LONGEST_BODY`.
        """


@asynccontextmanager
async def direct(url: str, access: Access) -> AsyncIterator[Send]:
    """Open the way to an http or https URL.

    Raises:
        ConfigError: its certificates cannot be used.
    """
    try:
        context = tls(access)
    except OSError as error:  # ssl.SSLError is one
        problem = f"the certificates cannot be used ({error}); look at ca_file, cert_file and key_file"
        raise ConfigError("prometheus", problem) from error
    # No cookies: a load balancer's would tie every question to one replica.
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:

        async def send(path: str, form: Mapping[str, str], *, timeout_s: float) -> HttpAnswer:
            try:
                async with session.post(
                    url.rstrip("/") + path, data=form, headers=headers(access), allow_redirects=False
                ) as response:
                    body = await read_at_most(response, LONGEST_BODY)
                    return HttpAnswer(response.status, body, response.headers.get("Date", ""))
            except TooLarge:
                raise
            except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a token that is no header
                raise Unreachable(str(error).partition("\n")[0][:200] or type(error).__name__) from error

        yield send
