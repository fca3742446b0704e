"""Servers inside the cluster, reached through the API server: a kubeconfig is all that it takes.

The API server keeps the Authorization header to itself, so that a server behind it is asked without credentials of its
own; who may ask is told by the right `create services/proxy` (`get` for what is read with GET).
"""

import asyncio
import json
from collections.abc import Mapping
from urllib.parse import urlencode

import aiohttp

from watchdog.errors import ClusterError, Denied, NotFound, Throttled, Unanswered
from watchdog.http import read_at_most
from watchdog.kube.transport import JSON, LONGEST_BYTES, Transport

SCHEME = "service://"

_FORM = "application/x-www-form-urlencoded"
_STATUS = {Denied: 403, NotFound: 404, Throttled: 429}


class ServiceProxy:
    """The way to one Service.

    Args:
        url: ``service://namespace/name:port``, and the server's path prefix where it has one.
    """

    def __init__(self, transport: Transport, url: str) -> None:
        namespace, _, rest = url.removeprefix(SCHEME).partition("/")
        service, _, prefix = rest.partition("/")
        self._transport = transport
        self._operation = f"proxy services {namespace}/{service}"
        self._path = f"/api/v1/namespaces/{namespace}/services/{service}/proxy/{prefix}".rstrip("/")

    async def ask(
        self, method: str, path: str, *, form: Mapping[str, str] | None = None, timeout_s: float
    ) -> tuple[int, bytes, str]:
        """Ask once.

        Args:
            path: path and query below the URL.
            form: what to post.
            timeout_s: seconds until the answer must have been read.

        Returns:
            Status, body and the header Date. Of a refusal the body is the API server's reason in Prometheus' form.

        Raises:
            Unanswered: no answer came, or one that asks to try again.
            TooLarge: it has more than 64 MiB.
        """
        body = None if form is None else urlencode(form).encode()
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._transport.stream(
                    self._path + path,
                    operation=self._operation,
                    method=method,
                    body=body,
                    content_type=JSON if body is None else _FORM,
                ) as response,
            ):
                raw = await read_at_most(response, LONGEST_BYTES)
                return response.status, raw, response.headers.get("Date", "")
        except Unanswered:
            raise
        except ClusterError as error:
            reason = f"{self._operation}: {error.reason.partition(':')[0].partition(';')[0]}"
            return _STATUS.get(type(error), 400), json.dumps({"status": "error", "error": reason}).encode(), ""
        except TimeoutError as error:
            raise Unanswered(self._operation, f"no answer within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unanswered(self._operation, type(error).__name__) from error
