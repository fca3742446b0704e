"""A second address of the API server, which loses answers: the write is made and the client never hears of it.

A frozen etcd does not give that reliably: the client that hangs up cancels its request, and when etcd goes on, it
may have seen the write before the cancellation or not (applied in 23 of 60 tries).
"""

import contextlib
import http.client
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.controlplane.plane import ControlPlane


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a watch ends when its client does

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients of such a server hang up."""


@contextlib.contextmanager
def losing_answers(plane: ControlPlane, *methods: str) -> Iterator[str]:
    """Yield the URL of a proxy that passes everything on but the answers to these methods.

    There it closes the connection without a byte, after the API server has answered. For use with
    `plane.kubeconfig_for(..., server=url)`; the certificate is the plane's.
    """
    trust = ssl.create_default_context(cafile=str(plane.ca_file))

    class Relay(BaseHTTPRequestHandler):
        def relay(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            upstream = http.client.HTTPSConnection(plane.url.removeprefix("https://"), context=trust)
            with contextlib.closing(upstream):
                upstream.request(self.command, self.path, body, dict(self.headers))
                with upstream.getresponse() as response:
                    if self.command in methods:
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
