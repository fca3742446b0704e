"""One request to the API server: its deadline, its status, its token, and what its failures are called here."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec

from watchdog.decoding import Malformed, Whole, from_json, seconds
from watchdog.errors import (
    AlreadyExists,
    ClusterError,
    ConfigError,
    Conflict,
    Denied,
    Expired,
    NotAdmitted,
    NotFound,
    PreconditionFailed,
    Rejected,
    ServerError,
    Throttled,
    TooLong,
    Unanswered,
)
from watchdog.http import USER_AGENT, TooLarge, read_at_most
from watchdog.kube import refusals
from watchdog.kube.library import Configuration, RESTClientObject

Load = Callable[[], Awaitable[Configuration]]

JSON = "application/json"
JSON_PATCH = "application/json-patch+json"

REPLICA = os.environ.get("POD_NAME") or socket.gethostname()
"""Tells replicas apart in the API server's audit log and in Events."""

_NO_LIMIT = aiohttp.ClientTimeout(total=None, sock_read=None)
LONGEST_BYTES = 64 << 20
"""The longest answer, or page of a list, that is taken; a longer one is given up while it is read."""

_LONGEST_ERROR_BYTES = 1 << 20
_READ_BYTES = 1 << 21


class _Cause(msgspec.Struct, frozen=True):
    field: str = ""
    reason: str = ""


class _Details(msgspec.Struct, frozen=True, rename="camel"):
    causes: tuple[_Cause, ...] = ()
    retry_after_seconds: Whole = 0


class ApiStatus(msgspec.Struct, frozen=True):
    """The API's error body. Its message may hold a whole object: only `refusals` reads it."""

    code: Whole = 0
    reason: str = ""
    message: str = ""
    details: _Details | None = None


class Transport:
    """An authenticated HTTP session with one API server."""

    def __init__(self, load: Load, configuration: Configuration) -> None:
        self._load = load
        self._configuration = configuration
        self._rest = RESTClientObject(configuration)
        # Not the library's own session: that one also looks into ~/.netrc, for credentials it then cannot send.
        self._session = aiohttp.ClientSession(
            connector=self._rest.pool_manager.connector, connector_owner=False, read_bufsize=_READ_BYTES
        )

    @classmethod
    async def open(cls, load: Load) -> "Transport":
        """Read the configuration and prepare TLS.

        Raises:
            ConfigError: the configuration cannot be used.
        """
        configuration = await load()
        try:
            host = urlsplit(str(configuration.host))
            if configuration.proxy is None and not proxy_bypass(host.hostname or ""):
                configuration.proxy = getproxies().get(host.scheme)
            # Each watch holds a connection for minutes. Reads and saves have limits of their own: a write finds one.
            configuration.connection_pool_maxsize = 0
            return cls(load, configuration)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise ConfigError("", f"the cluster's address or certificates cannot be used ({error})") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()
        await self._rest.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        operation: str,
        timeout_s: float,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = JSON,
    ) -> bytes:
        """Ask once and give the body of a 2xx answer.

        Args:
            operation: what this is, for errors: ``patch deployments shop/web``.
            timeout_s: seconds until the answer must have been read.
            body: what to send.
            content_type: its media type.

        Raises:
            ClusterError: anything else than a 2xx answer in time.
        """
        try:
            async with (
                asyncio.timeout(timeout_s),
                self.stream(
                    path, operation=operation, method=method, query=query, body=body, content_type=content_type
                ) as response,
            ):
                return await read_at_most(response, LONGEST_BYTES)
        except TimeoutError as error:
            raise Unanswered(operation, f"no answer within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unanswered(operation, _first_line(error)) from error
        except TooLarge as error:
            raise TooLong(operation, str(error)) from error

    @asynccontextmanager
    async def stream(
        self,
        path: str,
        *,
        operation: str,
        method: str = "GET",
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = JSON,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open a 2xx answer for reading. The caller sets the deadline and maps what breaks while it reads.

        A 401 is answered by reading the token again and asking once more: it may have been rotated a moment ago.
        """
        response = await self._send(operation, method, path, query, body, content_type)
        if response.status == 401:
            response.release()
            await self._authenticate_again(operation)
            response = await self._send(operation, method, path, query, body, content_type)
        try:
            if not 200 <= response.status < 300:
                try:
                    raw = await read_at_most(response, _LONGEST_ERROR_BYTES)
                except TooLarge:
                    raw = b""
                raise _error(operation, response, raw, patching=content_type == JSON_PATCH)
            yield response
        finally:
            if not response.content.at_eof() and response.connection and response.connection.transport:
                # A stream that is given up needs no TLS farewell, which a frozen server would answer late or never.
                response.connection.transport.abort()
            response.close()

    async def _send(
        self,
        operation: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None,
        content_type: str,
    ) -> aiohttp.ClientResponse:
        configuration = self._configuration
        headers = {"Accept": JSON, "User-Agent": f"{USER_AGENT} {REPLICA}"}
        try:
            settings = list((await configuration.auth_settings()).values())
        # The library reads the token's file anew and raises whatever it finds there.
        except Exception as error:
            raise Unanswered(operation, f"the token cannot be read ({type(error).__name__})") from error
        for setting in settings:
            value = setting["value"].strip()  # a token file may end with a newline
            if not (value.isascii() and value.isprintable()):
                raise Unanswered(operation, "the token holds what no header can; look at its file")
            headers[setting["key"]] = value
        if body is not None:
            headers["Content-Type"] = content_type
        return await self._session.request(
            method,
            f"{configuration.host}{path}",
            params=query,
            data=body,
            headers=headers,
            timeout=_NO_LIMIT,
            allow_redirects=False,
            proxy=self._rest.proxy,
            proxy_headers=self._rest.proxy_headers,
            server_hostname=self._rest.server_hostname,
        )

    async def _authenticate_again(self, operation: str) -> None:
        try:
            fresh = await self._load()
        except ConfigError as error:
            raise Denied(operation, "Unauthorized, and no fresh token can be read") from error
        self._configuration.api_key = fresh.api_key
        self._configuration.refresh_api_key_hook = fresh.refresh_api_key_hook


def _error(operation: str, response: aiohttp.ClientResponse, raw: bytes, *, patching: bool) -> ClusterError:
    """Map an answer to the tree of `watchdog.errors`, taking over its reason, and of its message only a refusal."""
    try:
        status = from_json(raw, ApiStatus)
    except Malformed:
        status = ApiStatus()
    code, reason = response.status, status.reason or f"HTTP {response.status}"
    causes = status.details.causes if status.details else ()
    if refusal := refusals.read(status.message):
        wait_s = _retry_after(response, status, otherwise=0.0)
        return NotAdmitted(
            operation, code=code, refuser=refusal.refuser, sentence=refusal.sentence, retry_after_s=wait_s
        )
    match code:
        case 401:
            unknown = Denied(operation, reason)
            unknown.may_pass = True  # the next token file may be on its way
            return unknown
        case 403:
            missing = refusals.missing_right(status.message)
            return Denied(operation, f"{reason}: {missing}" if missing else reason)
        case 404:
            return NotFound(operation, f"{reason}; are the name, the namespace and the context right?")
        case 409 if reason == "AlreadyExists":
            return AlreadyExists(operation, reason)
        case 409:
            return Conflict(operation, reason)
        case 410:
            return Expired(operation, reason)
        case 422 if patching and not causes:
            return PreconditionFailed(operation, reason)
        case 429:
            return Throttled(operation, reason, retry_after_s=_retry_after(response, status, otherwise=1.0))
        case code if code >= 500:
            # It did answer, but for a timeout on its way; a write may have been made all the same.
            return (ServerError if status.reason and code != 504 else Unanswered)(operation, reason)
    fields = ", ".join(f"{cause.field} ({cause.reason})" for cause in causes if cause.field)
    return Rejected(operation, f"{reason}: {fields or 'refused by validation or an admission policy'}")


def _retry_after(response: aiohttp.ClientResponse, status: ApiStatus, *, otherwise: float) -> float:
    """Seconds that the API asks to wait; `otherwise` where it asks nothing that can be read."""
    told = status.details.retry_after_seconds if status.details else 0
    return seconds(response.headers.get("Retry-After")) or seconds(str(told)) or otherwise


def _first_line(error: BaseException) -> str:
    return (str(error).partition("\n")[0] or type(error).__name__)[:200]
