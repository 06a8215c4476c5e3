"""A Hub on this machine: the few answers that huggingface_hub asks for to download a checkpoint."""

import hashlib
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0].strip("/").removeprefix("api/models/")
        name = "/".join(path.split("/")[:2])
        self.server.asked.append(f"{self.command} {self.path}")
        if name == "owner/gated":
            return self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        folder = self.server.checkpoints.get(name)
        if folder is None:
            return self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        rest = path.removeprefix(name).strip("/")
        kind, _, rest = rest.partition("/")
        revision, _, file = rest.partition("/")
        if revision and revision not in ("main", COMMIT):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        files = [path for path in folder.rglob("*") if path.is_file()]
        if kind in ("", "revision"):
            siblings = [{"rfilename": str(path.relative_to(folder))} for path in files]
            return self._json({"id": name, "sha": COMMIT, "siblings": siblings})
        if kind == "tree":
            return self._json(
                [
                    {
                        "type": "file",
                        "path": str(path.relative_to(folder)),
                        "size": path.stat().st_size,
                        "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
                    }
                    for path in files
                ]
            )
        if not (folder / file).is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        content = (folder / file).read_bytes()
        etag = hashlib.sha1(content).hexdigest()
        return self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def _json(self, content):
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status, content, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        """Silent: what is asked for is no news in a test."""


@contextmanager
def hub(checkpoints: dict[str, Path]):
    """Serves folders under Hub ids; "owner/gated" is there but closed.

    Yields:
        The server, with its address as `url` and the requests it got as `asked`.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    server.checkpoints, server.asked = checkpoints, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
