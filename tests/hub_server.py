"""A hub on this machine: repositories of a few files, each with two commits, that may be slow to answer."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

Files = dict[str, bytes]
OLD, NEW = "0" * 39 + "1", "0" * 39 + "2"  # commits
REVISIONS = {"main": NEW, "v1": OLD, OLD: OLD, NEW: NEW}


class Hub:
    """``repositories``: the files of each commit by "models/<name>" or "datasets/<name>"."""

    def __init__(self, repositories: dict[str, dict[str, Files]]) -> None:
        self.repositories = repositories
        self.slow_answers = 0  # how many of the next ones come after the client has given up
        self.delay_s = 0.0
        self.asked: list[str] = []
        self.url = ""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub at ``hub.url`` while the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(hub, self, body=True)

        def do_HEAD(self) -> None:
            _answer(hub, self, body=False)

        def do_POST(self) -> None:
            _answer(hub, self, body=True)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(hub: Hub, request: BaseHTTPRequestHandler, body: bool) -> None:
    path = unquote(urlparse(request.path).path)
    hub.asked.append(path)
    length = int(request.headers.get("Content-Length") or 0)
    posted = request.rfile.read(length).decode() if length else ""
    if hub.slow_answers > 0 and path.startswith(("/api/models/", "/api/datasets/")):
        hub.slow_answers -= 1
        time.sleep(hub.delay_s)
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 4:
        name = "/".join(parts[1:4])
        _send(request, *_api(hub, name, parts[4:], posted), body=body)
        return
    if parts[0] == "api":  # of the hub's own, not of a repository
        _send(request, 404, b"", {}, body=body)
        return
    kind = "datasets" if parts[0] == "datasets" else "models"
    owner, repository, _, revision, *file = parts[1:] if kind == "datasets" else parts
    commit = REVISIONS.get(revision, "")
    files = hub.repositories.get(f"{kind}/{owner}/{repository}", {}).get(commit)
    content = None if files is None else files.get("/".join(file))
    if content is None:
        code = "RevisionNotFound" if not commit else "EntryNotFound"
        _send(request, 404, b"", {"X-Error-Code": code, "X-Repo-Commit": commit}, body=body)
        return
    about = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
    _send(request, 200, content, about, body=body)


def _api(hub: Hub, name: str, rest: list[str], posted: str) -> tuple[int, bytes, dict[str, str]]:
    commits = hub.repositories.get(name)
    if commits is None:
        return 404, b"", {"X-Error-Code": "RepoNotFound"}
    revision = rest[1] if len(rest) > 1 else "main"
    commit = REVISIONS.get(revision)
    if commit is None:
        return 404, b"", {"X-Error-Code": "RevisionNotFound"}
    files = commits[commit]
    listed = [
        {"type": "file", "path": p, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
        for p, c in files.items()
    ]
    if rest[:1] == ["tree"]:
        return 200, json.dumps([] if len(rest) > 2 else listed).encode(), {}
    if rest[:1] == ["paths-info"]:
        wanted = json.loads(posted)["paths"] if posted.startswith("{") else []
        return 200, json.dumps([one for one in listed if one["path"] in wanted]).encode(), {}
    about = {
        "id": name.partition("/")[2], "sha": commit, "private": False, "downloads": 0, "tags": [],
        "siblings": [{"rfilename": p} for p in files],
    }  # fmt: skip
    return 200, json.dumps(about).encode(), {}


def _send(
    request: BaseHTTPRequestHandler,
    status: int,
    content: bytes,
    headers: dict[str, str],
    body: bool,
) -> None:
    try:
        request.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            request.send_header(name, value)
        request.end_headers()
        if body:
            request.wfile.write(content)
    except OSError:
        pass  # the client has given up


def files_of(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
