"""A Kubernetes API on this machine, over TLS, with RayJobs and nothing else; and the account that a pod would have for it."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme

NAMESPACE, TOKEN = "millrace", "a-service-account-token"
RAYJOBS = f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayjobs"


class KubernetesApi:
    """What it holds and was asked; `account` is a folder such as Kubernetes mounts into pods."""

    def __init__(self, server: ThreadingHTTPServer, account: Path) -> None:
        self.url = f"https://127.0.0.1:{server.server_port}"
        self.account = account
        self.rayjobs: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str]] = []
        self.may_create = True

    def answer(self, method: str, path: str, token: str | None, body: bytes) -> tuple[int, dict[str, Any]]:
        self.requests.append((method, path))
        if token != f"Bearer {TOKEN}":
            return self.refuse(401, "Unauthorized", "Unauthorized")
        route, _, _ = path.partition("?")
        name = route.removeprefix(f"{RAYJOBS}/")
        if method == "GET" and name in self.rayjobs:
            return 200, self.rayjobs[name]
        if method == "POST" and route == RAYJOBS:
            return self.create(json.loads(body))
        return self.refuse(404, "NotFound", f'rayjobs.ray.io "{name}" not found')

    def create(self, rayjob: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = rayjob["metadata"]["name"]
        if not self.may_create:
            return self.refuse(403, "Forbidden", "rayjobs.ray.io is forbidden")
        if name in self.rayjobs:
            return self.refuse(409, "AlreadyExists", f'rayjobs.ray.io "{name}" already exists')
        self.rayjobs[name] = rayjob
        return 201, rayjob

    @staticmethod
    def refuse(code: int, reason: str, message: str) -> tuple[int, dict[str, Any]]:
        return code, {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


@contextmanager
def kubernetes_api(folder: Path) -> Iterator[KubernetesApi]:
    """Runs one; its account lies in `folder`."""
    authority = trustme.CA()
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    api = KubernetesApi(server, folder)

    class Routes(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(b"")

        def do_POST(self) -> None:
            self.reply(self.rfile.read(int(self.headers["Content-Length"])))

        def reply(self, body: bytes) -> None:
            code, answer = api.answer(self.command, self.path, self.headers["Authorization"], body)
            content = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server.RequestHandlerClass = Routes
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    folder.mkdir(exist_ok=True)
    authority.cert_pem.write_to_path(str(folder / "ca.crt"))
    (folder / "token").write_text(f"{TOKEN}\n")
    (folder / "namespace").write_text(NAMESPACE)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
