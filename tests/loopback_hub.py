"""A Hub on 127.0.0.1 that serves folders of models and data sets by the routes huggingface_hub downloads through."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "a" * 40


class LoopbackHub:
    """Serves `repositories` (id -> folder), read-only, one commit each."""

    def __init__(self, repositories: dict[str, Path]) -> None:
        self.repositories = repositories
        self.requests: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self, with_body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, with_body=False)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, handler: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        path = unquote(urlsplit(handler.path).path)
        self.requests.append(f"{handler.command} {path}")
        parts = path.strip("/").removeprefix("datasets/").split("/")
        if parts[:2] in (["api", "models"], ["api", "datasets"]):
            folder = self.repositories.get("/".join(parts[2:4]))
            body = None if folder is None else json.dumps(self.describe("/".join(parts[2:4]), folder, parts)).encode()
            self.send(handler, body, {"Content-Type": "application/json"}, with_body, "RepoNotFound")
            return
        folder = self.repositories.get("/".join(parts[:2]))
        if folder is None:
            self.send(handler, None, {}, with_body, "RepoNotFound")
            return
        file = folder.joinpath(*parts[4:])
        body = file.read_bytes() if parts[2] == "resolve" and file.is_file() else None
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(body or b"").hexdigest()}"'}
        self.send(handler, body, headers, with_body, "EntryNotFound")

    def describe(self, name: str, folder: Path, parts: list[str]) -> object:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if "tree" in parts:
            return [
                {
                    "type": "file",
                    "path": path.relative_to(folder).as_posix(),
                    "size": path.stat().st_size,
                    "oid": COMMIT,
                }
                for path in files
            ]
        siblings = [{"rfilename": path.relative_to(folder).as_posix()} for path in files]
        return {"id": name, "modelId": name, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings}

    def send(
        self, handler: BaseHTTPRequestHandler, body: bytes | None, headers: dict[str, str], with_body: bool, error: str
    ) -> None:
        handler.send_response(200 if body is not None else 404)
        for key, value in headers.items():
            handler.send_header(key, value)
        if body is None:
            handler.send_header("X-Error-Code", error)
        handler.send_header("Content-Length", str(len(body or b"")))
        handler.end_headers()
        if with_body and body is not None:
            handler.wfile.write(body)


@contextmanager
def serve_hub(repositories: dict[str, Path]):
    hub = LoopbackHub(repositories)
    thread = threading.Thread(target=hub.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()
