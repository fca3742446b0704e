"""One pod asked for its exposition: no redirect, no proxy, no credentials, and an end to time and size."""

import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import aiohttp
import msgspec
from yarl import URL

from watchdog.http import USER_AGENT

_ACCEPT = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
_HEADERS = {"Accept": _ACCEPT, "Accept-Encoding": "gzip", "User-Agent": USER_AGENT}


class Unusable(Exception):  # noqa: N818  (reads as what happened)
    """Raised when a pod gave nothing that can be read; the text says why in a line."""


class Exposition(msgspec.Struct, frozen=True):
    """What a pod answered, unpacked, and in which of the two formats."""

    body: bytes
    openmetrics: bool


class Get(Protocol):
    """A way to pods."""

    async def __call__(self, url: URL, *, max_bytes: int) -> Exposition:
        """Ask one pod; the caller cancels when its time is over.

        Args:
            url: where; its host is an address.
            max_bytes: the longest that the answer may be, packed and unpacked.

        Raises:
            Unusable: there is no answer, none with status 200, or one that is too long.
        """


@asynccontextmanager
async def connect(*, concurrency: int) -> AsyncIterator[Get]:
    """Open the way to pods; at most so many are asked at once."""
    # One request each per step: a connection that is kept would be found closed by then as often as not. Certificates
    # are not checked, as no authority knows the addresses of pods; nothing secret is sent.
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=concurrency, force_close=True, ssl=False),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        trust_env=False,
        headers=_HEADERS,
    ) as session:

        async def get(url: URL, *, max_bytes: int) -> Exposition:
            try:
                async with session.get(url, allow_redirects=False) as response:
                    if response.status != 200:
                        raise Unusable(f"HTTP {response.status}")
                    body = await _body(response, max_bytes)
                    return Exposition(body, response.content_type == "application/openmetrics-text")
            except (aiohttp.ClientError, OSError, ValueError, zlib.error) as error:
                raise Unusable(str(error).partition("\n")[0][:200] or type(error).__name__) from error

        yield get


async def _body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Read and unpack as it comes, so that a small answer that unpacks to a huge one is never held."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", ""):
        raise Unusable(f"packed as {encoding[:20]!r}, which was not asked for")
    unpack = zlib.decompressobj(16 + zlib.MAX_WBITS) if encoding == "gzip" else None
    body, received = bytearray(), 0
    async for chunk in response.content.iter_any():
        received += len(chunk)
        body += unpack.decompress(chunk, max_bytes + 1 - len(body)) if unpack else chunk
        if len(body) > max_bytes or received > max_bytes:
            raise Unusable(f"the answer is longer than scrape.max_bytes, {max_bytes:,}")
    if unpack and not unpack.eof:
        raise Unusable("the packed answer is cut off")
    return bytes(body)
