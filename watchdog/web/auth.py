"""Who asks, and may they? Nothing is remembered from one request to the next: what is revoked must bite.

A token stands in a configured file, or the API server knows it for our audience; then it is asked too what its owner
may do. A token for another audience is never taken: whoever receives it could act elsewhere as its owner.
"""

import asyncio
import hmac
import logging
import re
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from aiohttp import web

from watchdog.config import Server
from watchdog.errors import ClusterError
from watchdog.kube import Reviews, Right
from watchdog.kube.reviews import User
from watchdog.web.answers import HttpError

AUDIENCE = "rollback-watchdog"

_log = logging.getLogger(__name__)

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 §2.1
_WORD = re.compile(rb"[!-~]+")
_LONGEST_FILE = 1 << 16
_REVIEWS_AT_ONCE = 8


class Caller(msgspec.Struct, frozen=True):
    """Who asks; `user` is None for whoever has a token from our files, and may everything."""

    name: str
    user: User | None = None


class Authentication:
    """Lets requests in. Token files are read each time, so that a rotated one holds at once.

    Where a configured file cannot be read, or holds no token, nobody knows whether the one that was shown stands in it:
    that is 503, which Alertmanager repeats, and never 401, after which it drops the alert.

    Args:
        settings: with the token files; a file may hold several tokens.
        reviews: where the API server is asked.
        request_s: deadline of one review.

    """

    def __init__(self, settings: Server, reviews: Reviews, *, request_s: float) -> None:
        for setting in ("alerts_token_files", "api_token_files"):
            for file in getattr(settings, setting):
                _tokens(file)  # warns; an optional Secret may come later, and until then nobody is let in by it
        self._settings = settings
        self._reviews = reviews
        self._request_s = request_s
        # Whoever floods us with false tokens shall not take the API server's time from our own writes.
        self._turns = asyncio.Semaphore(_REVIEWS_AT_ONCE)

    def admit_alerts(self, request: web.Request) -> None:
        """Let a token or a client certificate pass; TLS has verified the certificate."""
        certified = request.transport and request.transport.get_extra_info("peercert")
        if certified:
            return
        known = _holds(self._settings.alerts_token_files, _bearer(request))
        if not known:
            raise _unknown(known, "alerts need a token or a client certificate that is configured here")

    async def caller(self, request: web.Request) -> Caller:
        """Find out who asks."""
        token, user = _bearer(request), None
        known = _holds(self._settings.api_token_files, token)
        if known:
            return Caller("static token")
        if _TOKEN.fullmatch(token):
            async with self._turn():
                user = await self._reviews.whose(token, audience=AUDIENCE, timeout_s=self._request_s)
        if not user:
            raise _unknown(known, f"this needs a bearer token that is valid for the audience {AUDIENCE}")
        return Caller(user.username, user)

    async def may(self, caller: Caller, verb: str, *, namespace: str, name: str = "") -> bool:
        """Whether somebody may do this to a Deployment, or without a name to all of a namespace."""
        if not caller.user:
            return True
        right = Right(verb, "deployments", group="apps", namespace=namespace, name=name)
        async with self._turn():
            return await self._reviews.may(caller.user, right, timeout_s=self._request_s)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for a turn to ask the API server; where it does not say, nobody is let in."""
        try:
            async with asyncio.timeout(self._request_s), self._turns:
                yield
        except (ClusterError, TimeoutError) as error:
            _log.warning("nobody can be let in: %s", error or "too many ask", extra={"event": "review-failed"})
            raise HttpError(503, "the API server cannot be asked who you are and what you may") from error


def _bearer(request: web.Request) -> str:
    """The token of a request; empty where there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _holds(files: Sequence[str], token: str) -> bool | None:
    """Whether one of the files holds it, and None where that is not known, since one of them cannot be read.

    A token that is nearly right takes as long as any other.
    """
    given = token.encode(errors="surrogateescape")
    found = [_tokens(file) for file in files]
    if any([hmac.compare_digest(known, given) for tokens in found for known in tokens or ()]):
        return True
    return None if given and None in found else False


def _unknown(known: bool | None, wanted: str) -> HttpError:
    """The answer to a token that no file holds that could be read."""
    if known is None:
        return HttpError(503, "a file of tokens cannot be read: ask again")
    return HttpError(401, wanted)


def _tokens(file: str) -> list[bytes] | None:
    """The tokens in a file; None where it cannot be read, is none, or holds none: it is being rotated, or is wrong."""
    content, problem = b"", ""
    try:
        if stat.S_ISFIFO(Path(file).stat().st_mode):  # opening one would wait for its other end
            problem = "a pipe"
        else:
            with Path(file).open("rb") as opened:
                content = opened.read(_LONGEST_FILE + 1)
    except (OSError, ValueError) as error:
        problem = (error.strerror if isinstance(error, OSError) else None) or str(error)
    tokens = content.split()
    if len(content) > _LONGEST_FILE or not all(map(_WORD.fullmatch, tokens)):
        problem = "what it holds are no tokens"
    elif not tokens:
        problem = problem or "empty"
    if problem:
        _log.warning("%s cannot be read (%s)", file, problem, extra={"event": "token-file"})
    return None if problem else tokens
