"""A second address of the API server, which loses answers, refuses or is slow as it is told to.

Where an answer is lost, the write is made and the client never hears of it. A frozen etcd does not give that reliably:
the client that hangs up cancels its request, and when etcd goes on, it may have seen the write before the cancellation
or not (applied in 23 of 60 tries).
"""

import contextlib
import http.client
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from tests.controlplane.plane import ControlPlane


class Trouble(NamedTuple):
    """What becomes of one request: it waits so long, is refused with a status, or its answer is lost."""

    wait_s: float = 0.0
    status: int = 0
    lost: bool = False


Troubles = Callable[[str, str], Trouble]
"""From method and path to what becomes of that request."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a watch ends when its client does

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients of such a server hang up."""


def losing_answers(plane: ControlPlane, *methods: str) -> contextlib.AbstractContextManager[str]:
    """As `troubled`: everything is passed on, and the answers to these methods are lost.

    The connection is closed without a byte, after the API server has answered.
    """
    return troubled(plane, lambda method, _: Trouble(lost=method in methods))


@contextlib.contextmanager
def troubled(plane: ControlPlane, troubles: Troubles) -> Iterator[str]:
    """Yield the URL of a proxy that passes requests on with these troubles.

    For use with `plane.kubeconfig_for(..., server=url)`; the certificate is the plane's.
    """
    trust = ssl.create_default_context(cafile=str(plane.ca_file))

    class Relay(BaseHTTPRequestHandler):
        def relay(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            trouble = troubles(self.command, self.path)
            time.sleep(trouble.wait_s)
            if trouble.status:
                self.send_response_only(trouble.status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(b"{}")
                return
            upstream = http.client.HTTPSConnection(plane.url.removeprefix("https://"), context=trust)
            with contextlib.closing(upstream):
                upstream.request(self.command, self.path, body, dict(self.headers))
                with upstream.getresponse() as response:
                    if trouble.lost:
                        response.read()
                        return
                    self.send_response_only(response.status)
                    self.send_header("Content-Type", response.headers["Content-Type"])
                    self.end_headers()
                    while chunk := response.read1():
                        self.wfile.write(chunk)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = relay  # noqa: N815 (http.server wants it so)

    server = _Server(("127.0.0.1", 0), Relay)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(plane.ca_file, plane.ca_file.with_suffix(".key"))
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
