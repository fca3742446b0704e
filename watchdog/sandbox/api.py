"""The store over HTTP: paths, verbs, media types and statuses as the API server has them."""

import copy
import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from watchdog.sandbox import discovery, reading, tables
from watchdog.sandbox.fields import check, checked
from watchdog.sandbox.patching import patcher
from watchdog.sandbox.refusals import ApiError, bad_request, invalid, missing
from watchdog.sandbox.resources import RESOURCES, Resource
from watchdog.sandbox.reviews import Accounts
from watchdog.sandbox.scale import read_scale, write_scale
from watchdog.sandbox.store import Key, Store

Json = dict[str, Any]
log = logging.getLogger(__name__)

_HEALTH = frozenset({"/healthz", "/livez", "/readyz"})
_VERBS = {"POST": "create", "PUT": "update"}
_SUBRESOURCES = frozenset({"status", "scale"})


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a path points at.

    Args:
        kind: of object.
        namespace: empty where the kind has none; None for all.
        name: empty for the whole collection.
        subresource: empty, ``status`` or ``scale``.
    """

    kind: Resource
    namespace: str | None
    name: str = ""
    subresource: str = ""


class Api:
    """The handler of every request.

    Args:
        store: the objects.
        accounts: whose tokens are known.
    """

    def __init__(self, store: Store, accounts: Accounts) -> None:
        self._store = store
        self._accounts = accounts

    def application(self) -> web.Application:
        """The server, to be run."""
        application = web.Application(client_max_size=1 << 24)
        application.router.add_route("*", "/{path:.*}", self.serve)
        return application

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer a request; what the sandbox has not answers 501 and names itself."""
        try:
            if request.path in _HEALTH:
                return web.Response(text="ok")
            if request.method == "GET" and (found := discovery.document(request.path)) is not None:
                return _answer(found)
            return await self._route(request)
        except ApiError as error:
            headers = {}
            if seconds := (error.details or {}).get("retryAfterSeconds"):
                headers["Retry-After"] = str(seconds)
            if error.code == 501:
                log.warning("not in the sandbox", extra={"method": request.method, "path": request.path})
            return _answer(error.status(), code=error.code, headers=headers)

    async def _route(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if "protobuf" in request.content_type:
            raise ApiError(415, "UnsupportedMediaType", "the sandbox has no protobuf; send JSON")
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        account = self._accounts.whoami(token)
        if request.method == "POST" and request.path.endswith("reviews"):
            group, name = request.path.split("/")[-3::2]
            self._accounts.authorize(account, _attributes("create", group, name))
            reviewed = self._accounts.review(request.path.rsplit("/", 1)[-1], _object(body, empty=True), token=token)
            if reviewed is not None:
                return _answer(reviewed, code=201)
        target, query = _target(request.path), request.query
        self._accounts.authorize(account, _asked(request, target))
        match request.method, bool(target.name):
            case "GET", False if query.get("watch") in ("true", "1"):
                return await self._watch(request, target)
            case "GET", False:
                return self._list(request, target)
            case "GET", True if query.get("watch") in ("true", "1"):
                raise missing(f"watch of a single object ({request.path}); use a fieldSelector")
            case "GET", True:
                item = self._store.get(target.kind.name, target.namespace or "", target.name)
                shown = read_scale(item) if target.subresource == "scale" else item
                return _answer(tables.shaped(shown, target.kind, _accept(request), single=True))
            case "POST", False:
                new = check(target.kind, _object(body), strict=_strict(request))
                made = self._store.create(target.kind.name, new, namespace=target.namespace or "", **_writing(request))
                return _answer(made, code=201)
            case "PUT", True:
                return _answer(self._replace(target, _object(body), request))
            case "PATCH", True:
                return _answer(self._patch(target, body, request))
            case "DELETE", True:
                return _answer(self._delete(target, _object(body, empty=True), query))
        raise missing(f"{request.method} {request.path}")

    def _list(self, request: web.Request, target: Target) -> web.Response:
        items, metadata = reading.page(self._store, target.kind, target.namespace, request.query)
        return _answer(tables.shaped_list(items, metadata, target.kind, _accept(request)))

    async def _watch(self, request: web.Request, target: Target) -> web.StreamResponse:
        accept = _accept(request)

        def shape(item: Json) -> Json:
            return tables.shaped(item, target.kind, accept)

        lines = reading.events(self._store, target.kind, target.namespace, request.query, shape=shape)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        first = await anext(lines, None) if request.query.get("sendInitialEvents") else b""
        await response.prepare(request)
        if first:
            await response.write(first)
        async for line in lines:
            await response.write(line)
        return response

    def _replace(self, target: Target, body: Json, request: web.Request) -> Json:
        if target.kind.name == "leases" and not body.get("metadata", {}).get("resourceVersion"):
            raise _unversioned(target)
        if target.subresource != "scale":
            check(target.kind, body, strict=_strict(request))
        return self._modify(target, lambda old: body, _writing(request))

    def _patch(self, target: Target, body: bytes, request: web.Request) -> Json:
        change = patcher(request.content_type, body)
        if target.subresource != "scale":
            change = checked(target.kind, change, strict=_strict(request))
        return self._modify(target, change, _writing(request))

    def _modify(self, target: Target, change: Callable[[Json], Json], writing: dict[str, Any]) -> Json:
        if target.subresource == "scale":
            written = write_scale(change)
            return read_scale(self._store.modify(*_key(target), written, subresource="scale", **writing))
        return self._store.modify(*_key(target), change, subresource=target.subresource, **writing)

    def _delete(self, target: Target, options: Json, query: Mapping[str, str]) -> Json:
        policy = options.get("propagationPolicy") or query.get("propagationPolicy") or "Background"
        if policy == "Foreground":
            raise missing("propagationPolicy Foreground; use Background")
        grace = options.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
        gone = self._store.delete(
            target.kind.name,
            target.namespace or "",
            target.name,
            grace_s=None if grace is None else int(grace),
            uid=(options.get("preconditions") or {}).get("uid"),
            orphan=policy == "Orphan" or options.get("orphanDependents") is True,
            dry_run="dryRun" in query or bool(options.get("dryRun")),
        )
        if "deletionTimestamp" in gone["metadata"]:
            return gone
        details = {"name": target.name, "kind": target.kind.name, "uid": gone["metadata"]["uid"]}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _target(path: str) -> Target:
    match path.strip("/").split("/"):
        case ["api", version, *rest]:
            group = ""
        case ["apis", group, version, *rest]:
            pass
        case _:
            raise missing(path)
    namespace: str | None = None
    if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in _SUBRESOURCES:
        _, namespace, *rest = rest
    resource, name, subresource, *more = [*rest, "", "", ""][:4]
    kind = RESOURCES.get(resource)
    if kind is None or (kind.group, kind.version) != (group, version) or any(more):
        raise missing(path)
    if subresource and subresource not in kind.subresources:
        raise missing(f"subresource {kind.name}/{subresource}")
    return Target(kind=kind, namespace=namespace if kind.namespaced else "", name=name, subresource=subresource)


def _asked(request: web.Request, target: Target) -> Json:
    """What a request wants to do, as a SubjectAccessReview would ask for it."""
    verb = _VERBS.get(request.method, request.method.lower())
    if request.method == "GET" and not target.name:
        verb = "watch" if request.query.get("watch") in ("true", "1") else "list"
    about = {"subresource": target.subresource, "namespace": target.namespace or "", "name": target.name}
    return {**_attributes(verb, target.kind.group, target.kind.name), **about}


def _attributes(verb: str, group: str, resource: str) -> Json:
    return {"verb": verb, "group": group, "resource": resource, "subresource": "", "namespace": "", "name": ""}


def _key(target: Target) -> Key:
    return target.kind.name, target.namespace or "", target.name


def _writing(request: web.Request) -> dict[str, Any]:
    """How to write: for show or not, and as whom, which is the client's name unless the request says another."""
    if request.query.get("dryRun", "All") != "All":
        raise bad_request(f"dryRun: Unsupported value: {request.query['dryRun']!r}")
    client = request.headers.get("User-Agent", "").partition("/")[0]
    return {"dry_run": "dryRun" in request.query, "manager": request.query.get("fieldManager") or client or "unknown"}


def _strict(request: web.Request) -> bool:
    return request.query.get("fieldValidation") == "Strict"


def _object(body: bytes, *, empty: bool = False) -> Json:
    if not body and empty:
        return {}
    try:
        item: Json = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise bad_request(f"the body is not an object in JSON: {error}") from error
    return copy.copy(item)


def _accept(request: web.Request) -> str:
    return request.headers.get("Accept", "")


def _unversioned(target: Target) -> ApiError:
    return invalid(
        target.kind.kind,
        target.kind.group,
        target.name,
        ("metadata.resourceVersion", "Invalid value: 0: must be specified for an update"),
    )


def _answer(body: Json, *, code: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=code, content_type="application/json", headers=headers)
