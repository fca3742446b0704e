"""An admission webhook of the tests: an HTTPS server that answers as its paths are told to."""

import base64
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from tests.controlplane.plane import Json

Answer = Callable[[Json], Json]


class AdmissionServer:
    """Serves admission reviews on 127.0.0.1; a context manager.

    Attributes:
        answers: by path, what becomes of a review's request: the fields of its response.
    """

    def __init__(self, directory: Path) -> None:
        self.answers: dict[str, Answer] = {}
        command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout webhook.key -days 2"
        extensions = ["subjectAltName=IP:127.0.0.1", "keyUsage=critical,digitalSignature,keyCertSign"]
        arguments = [*command.split(), "-out", "webhook.crt", "-subj", "/CN=webhook"]
        openssl = shutil.which("openssl") or "openssl"
        added = [argument for extension in extensions for argument in ("-addext", extension)]
        subprocess.run([openssl, *arguments, *added], cwd=directory, capture_output=True, check=True)
        self.ca = base64.b64encode((directory / "webhook.crt").read_bytes()).decode()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "webhook.crt", directory / "webhook.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answers = self.answers

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                request = review["request"]
                answer = {"uid": request["uid"], **answers[self.path.partition("?")[0]](request)}
                kinds = {"apiVersion": review["apiVersion"], "kind": review["kind"]}
                body = json.dumps({**kinds, "response": answer}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler


def denial(code: int, message: str) -> Json:
    """A no with a status of the webhook's choice; 0 leaves it to the API server."""
    status = {"message": message, **({"code": code} if code else {})}
    return {"allowed": False, "status": status}


def mutation(*operations: Json) -> Json:
    """A yes that changes the object."""
    patch = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": patch}
