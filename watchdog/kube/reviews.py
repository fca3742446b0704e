"""May somebody do something? Asked of the API server, which alone knows."""

from collections.abc import Mapping

import msgspec

from watchdog.errors import Unanswered
from watchdog.kube.reading import decode
from watchdog.kube.transport import Transport


class Right(msgspec.Struct, frozen=True):
    """A verb on a kind of object.

    Args:
        verb: get, list, watch, patch, create or delete.
        resource: the plural name, such as ``deployments``.
        group: the API group; empty for the core.
        namespace: where; empty for objects that have no namespace.
        name: one object; empty for all.
    """

    verb: str
    resource: str
    group: str = ""
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}"


class User(msgspec.Struct, frozen=True):
    """Who a token belongs to, in the API server's words."""

    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = {}


class _Attributes(msgspec.Struct, frozen=True, rename="camel"):
    user_info: User = User()
    user: User = User()
    authenticated: bool = False
    audiences: tuple[str, ...] = ()
    error: str = ""
    allowed: bool = False


class _Review(msgspec.Struct, frozen=True):
    status: _Attributes


class Reviews:
    """The review APIs of one cluster."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def whoami(self, *, timeout_s: float) -> User:
        """Ask who we are.

        Raises:
            ClusterError: among others NotFound before Kubernetes 1.28, which has no such review.
        """
        return (await self._ask("authentication", "selfsubjectreviews", {}, timeout_s)).user_info

    async def may_i(self, right: Right, *, timeout_s: float) -> bool:
        """Ask whether we have a right."""
        spec = {"resourceAttributes": msgspec.to_builtins(right)}
        return (await self._ask("authorization", "selfsubjectaccessreviews", spec, timeout_s)).allowed

    async def whose(self, token: str, *, audience: str, timeout_s: float) -> User | None:
        """Ask who a token belongs to; None where it is not valid for `audience`.

        A token for another audience is not accepted: whoever receives it could act as its owner elsewhere.
        """
        spec = {"token": token, "audiences": [audience]}
        status = await self._ask("authentication", "tokenreviews", spec, timeout_s)
        good = status.authenticated and not status.error and audience in status.audiences
        return status.user if good else None

    async def may(self, user: User, right: Right, *, timeout_s: float) -> bool:
        """Ask whether somebody has a right; never from a cache, since a revoked one must bite."""
        spec = {
            "user": user.username,
            "uid": user.uid,
            "groups": user.groups,
            "extra": user.extra,
            "resourceAttributes": msgspec.to_builtins(right),
        }
        return (await self._ask("authorization", "subjectaccessreviews", spec, timeout_s)).allowed

    async def _ask(self, group: str, resource: str, spec: Mapping[str, object], timeout_s: float) -> _Attributes:
        operation = f"create {resource}"
        raw = await self._transport.request(
            "POST",
            f"/apis/{group}.k8s.io/v1/{resource}",
            operation=operation,
            timeout_s=timeout_s,
            body=msgspec.json.encode({"spec": spec} if spec else {}),
        )
        try:
            return decode(raw, _Review, operation=operation).status
        except Unanswered:
            # A token must not come back to light in an error's context.
            raise Unanswered(operation, "malformed answer") from None
