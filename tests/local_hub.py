"""A Hub on this machine: as much of the protocol as uploads and downloads of small files take."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_test"


class LocalHub:
    """The repositories: each a folder `user/name`, and the messages of its commits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commits: dict[str, list[str]] = {}
        self.address = ""

    def commit_id(self, repository: str) -> str:
        return hashlib.sha1(str(self.commits[repository]).encode()).hexdigest()

    def files(self, repository: str) -> list[str]:
        root = self.folder / repository
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@contextmanager
def serve_hub(folder: Path) -> Iterator[LocalHub]:
    hub = LocalHub(folder)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.answer({"error": "Invalid credentials"}, 401)
            elif parts == ["api", "repos", "create"]:
                wanted = json.loads(body)
                name = f"{wanted.get('organization', 'user')}/{wanted['name']}"
                existed = name in hub.commits
                hub.commits.setdefault(name, [])
                (hub.folder / name).mkdir(parents=True, exist_ok=True)
                self.answer({"url": f"{hub.address}/{name}"}, 409 if existed else 200)
            elif parts == ["api", "validate-yaml"]:
                self.answer({"errors": [], "warnings": []})
            elif parts[-2] == "preupload":
                files = [file["path"] for file in json.loads(body)["files"]]
                self.answer({"files": [{"path": f, "uploadMode": "regular", "shouldIgnore": False} for f in files]})
            elif parts[-2] == "commit":
                name = "/".join(parts[2:4])
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "header":
                        hub.commits[name].append(line["value"]["summary"])
                    if line["key"] == "file":
                        path = hub.folder / name / line["value"]["path"]
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(base64.b64decode(line["value"]["content"]))
                commit = hub.commit_id(name)
                address = f"{hub.address}/{name}/commit/{commit}"
                self.answer({"commitOid": commit, "commitUrl": address, "success": True})
            else:
                self.answer({"error": f"no such thing: {self.path}"}, 404)

        def do_GET(self) -> None:
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            if parts == ["api", "whoami-v2"]:
                known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
                self.answer({"name": "user"} if known else {"error": "Invalid credentials"}, 200 if known else 401)
                return
            name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
            if name not in hub.commits:
                self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
                return
            commit = hub.commit_id(name)
            root = hub.folder / name
            if parts[0] == "api" and "tree" in parts:
                sizes = {file: (root / file).stat().st_size for file in hub.files(name)}
                self.answer([{"type": "file", "path": f, "size": s, "oid": "0" * 40} for f, s in sizes.items()])
                return
            if parts[0] == "api":
                siblings = [{"rfilename": file} for file in hub.files(name)]
                self.answer({"id": name, "sha": commit, "siblings": siblings, "private": False, "tags": []})
                return
            path = root / "/".join(parts[4:])
            if not path.is_file():
                self.answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
                return
            content = path.read_bytes()
            tag = hashlib.sha1(content).hexdigest()
            self.answer(content, 200, {"ETag": f'"{tag}"', "X-Repo-Commit": commit})

        def do_HEAD(self) -> None:
            self.do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
