"""A Hub on this machine: as much of its protocol as models, Spaces and datasets take, and its faults."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.hub_metadata import errors_of

TOKEN = "hf_test"
LARGE = (".safetensors", ".jpg", ".bin")
"""Files that go through the large file storage, as `.gitattributes` of the Hub has it."""


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    details: dict[str, Any] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)  # of the commits to main
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # files by path
    references: dict[str, str] = field(default_factory=dict)  # branches and pull requests
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, title: str, files: dict[str, bytes], reference: str = "main") -> str:
        if reference == "main":
            self.titles.append(title)
        everything = repr((title, sorted(files), len(self.commits))).encode()
        identity = hashlib.sha1(everything).hexdigest()
        self.commits[identity] = files
        self.references[reference] = identity
        return identity

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else (self.references | self.tags).get(revision)


@dataclass
class LocalHub:
    address: str = ""
    repositories: dict[str, Repository] = field(
        default_factory=dict
    )  # "user/name", "spaces/user/name" or "datasets/user/name"
    large: dict[str, bytes] = field(default_factory=dict)  # by SHA-256
    requests: list[tuple[str, str]] = field(default_factory=list)
    faults: list[tuple[str, int]] = field(default_factory=list)  # pattern of the path, and status; 0 drops it half way

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        repository = self.repositories[name]
        return repository.commits[repository.references[revision]]

    def add(self, name: str, files: dict[str, bytes], **details: Any) -> Repository:
        repository = self.repositories[name] = Repository(**details)
        repository.commit("first", files)
        return repository


@contextmanager
def serve_hub() -> Iterator[LocalHub]:
    hub = LocalHub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        @property
        def token_is_known(self) -> bool:
            return self.headers.get("Authorization") == f"Bearer {TOKEN}"

        def answer(self, content: Any = b"", status: int = 200, **headers: str) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def refuse(self, status: int, code: str, message: str = "") -> None:
            self.answer({"error": message or code}, status, X_Error_Code=code, X_Error_Message=message or code)

        def is_faulty(self) -> bool:
            for number, (pattern, status) in enumerate(hub.faults):
                if re.search(pattern, self.path) and not (status == 0 and self.command == "HEAD"):
                    if status == 0:
                        del hub.faults[number]
                        self.send_response(200)
                        self.send_header("Content-Length", "1000000")
                        self.end_headers()
                        self.wfile.write(b"half of it")
                        self.close_connection = True
                    else:
                        self.answer({"error": "fault"}, status)
                    return True
            return False

        def repository(self, name: str) -> Repository | None:
            """The repository, if this client may see it; else the client has its answer."""
            found = hub.repositories.get(name)
            if self.headers.get("Authorization") and not self.token_is_known:
                self.refuse(401, "", "Invalid credentials in Authorization header")
            elif found is None or (found.private and not self.token_is_known):
                self.refuse(404 if self.token_is_known else 401, "RepoNotFound", "Repository not found")
            elif found.gated:
                self.refuse(403, "GatedRepo", "Access to it is restricted")
            else:
                return found
            return None

        def parts(self) -> tuple[str, list[str]]:
            """The repository that a path is about, and the rest of the path."""
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            if parts[0] == "api":
                kind, user, name = parts[1:4]
                return f"{'' if kind == 'models' else kind + '/'}{user}/{name}", parts[4:]
            count = 3 if parts[0] in ("spaces", "datasets") else 2
            return "/".join(parts[:count]), parts[count:]

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.requests.append((self.command, self.path))
            path = urlsplit(self.path).path
            if self.is_faulty():
                return
            if path == "/api/validate-yaml":
                self.validate(**json.loads(body))
            elif not self.token_is_known:
                self.refuse(401, "", "Invalid credentials in Authorization header")
            elif path == "/api/repos/create":
                wanted = json.loads(body)
                kind = wanted.get("type", "model")
                name = f"{wanted.get('organization') or 'user'}/{wanted['name']}"
                full = name if kind == "model" else f"{kind}s/{name}"
                existed = full in hub.repositories
                if not existed:
                    hub.repositories[full] = Repository(details=wanted)
                    hub.repositories[full].private = wanted.get("visibility") == "private" or wanted.get(
                        "private", False
                    )
                    hub.repositories[full].references["main"] = hub.repositories[full].commit("initial commit", {})
                    hub.repositories[full].titles.clear()
                self.answer({"url": f"{hub.address}/{full}", "id": name}, 409 if existed else 200)
            elif path.endswith("/info/lfs/objects/batch"):
                objects = []
                for one in json.loads(body)["objects"]:
                    action = {"upload": {"href": f"{hub.address}/large/{one['oid']}"}}
                    objects.append({**one, **({} if one["oid"] in hub.large else {"actions": action})})
                self.answer({"transfer": "basic", "objects": objects})
            else:
                self.change(json.loads(body) if "/preupload/" in path else body)

        def validate(self, content: str, repoType: str) -> None:  # noqa: N803
            errors = errors_of(content, repoType)
            if self.headers.get("Accept") == "text/plain":
                self.answer("".join(f"- Error: {error}\n" for error in errors).encode(), 400 if errors else 200)
            else:
                report = {"errors": [{"message": error} for error in errors], "warnings": []}
                self.answer(report, 400 if errors else 200)

        def change(self, body: Any) -> None:
            name, rest = self.parts()
            repository = self.repository(name)
            if repository is None:
                return
            if rest[0] == "preupload":
                modes = {file["path"]: "lfs" if file["path"].endswith(LARGE) else "regular" for file in body["files"]}
                self.answer({"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()]})
                return
            if rest[0] == "branch":
                existed = rest[1] in repository.references
                repository.references.setdefault(rest[1], repository.references["main"])
                self.answer({}, 409 if existed else 200)
                return
            if rest[0] == "tag":
                identity = repository.resolve(rest[1])
                assert identity is not None
                existed = repository.tags.setdefault(json.loads(body)["tag"], identity) != identity
                self.answer({}, 409 if existed else 200)
                return
            parent = repository.resolve(rest[1])
            files = dict(repository.commits[parent]) if parent else {}
            title = ""
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "header":
                    title = value["summary"]
                elif line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.large[value["oid"]]
            proposed = "create_pr=1" in self.path
            identity = repository.commit(title, files, "refs/pr/1" if proposed else rest[1])
            address = f"{hub.address}/{name}"
            report = {"commitOid": identity, "commitUrl": f"{address}/commit/{identity}", "success": True}
            self.answer(report | ({"pullRequestUrl": f"{address}/discussions/1"} if proposed else {}))

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.requests.append((self.command, self.path))
            identity = self.path.split("/")[-1]
            assert hashlib.sha256(body).hexdigest() == identity
            hub.large[identity] = body
            self.answer()

        def do_GET(self) -> None:
            hub.requests.append((self.command, self.path))
            if self.is_faulty():
                return
            if self.path == "/api/whoami-v2":
                if self.token_is_known:
                    self.answer({"name": "user", "type": "user"})
                else:
                    self.refuse(401, "", "Invalid credentials in Authorization header")
                return
            if self.path.startswith("/large/"):
                self.send_large(self.path.split("/")[-1])
                return
            if self.path.count("/") < (4 if self.path.startswith("/api/") else 2):
                self.answer({"error": "no such thing"}, 404)
                return
            name, rest = self.parts()
            repository = self.repository(name)
            if repository is None:
                return
            if rest == ["refs"]:
                tags = [
                    {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": c} for tag, c in repository.tags.items()
                ]
                self.answer({"branches": [], "converts": [], "tags": tags})
                return
            revision = rest[1] if len(rest) > 1 else "main"
            identity = repository.resolve(revision)
            if identity is None:
                self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
                return
            files = repository.commits[identity]
            if rest[:1] == ["tree"]:
                self.send_tree(files, "".join(f"{part}/" for part in rest[2:]))
            elif rest[:1] == ["resolve"]:
                self.send_file(files.get("/".join(rest[2:])), identity, "/".join(rest[2:]))
            else:
                siblings = [{"rfilename": path, "size": len(content)} for path, content in files.items()]
                self.answer({"id": name, "sha": identity, "siblings": siblings, "private": repository.private})

        do_HEAD = do_GET  # noqa: N815

        def send_tree(self, files: dict[str, bytes], folder: str) -> None:
            """Lists the files and folders in a folder, and on demand those in its folders."""
            below = {path: len(content) for path, content in files.items() if path.startswith(folder)}
            folders = {str(parent) for path in below for parent in PurePosixPath(path).parents} - {"."}
            entries: list[dict[str, Any]] = [{"type": "file", "path": path, "size": below[path]} for path in below]
            entries += [{"type": "directory", "path": path} for path in folders if path.startswith(folder)]
            if "recursive=true" not in self.path.lower():
                entries = [entry for entry in entries if "/" not in entry["path"].removeprefix(folder)]
            if folder and not entries:
                self.refuse(404, "EntryNotFound")
            else:
                self.answer([{**entry, "oid": "0" * 40} for entry in entries])

        def send_file(self, content: bytes | None, identity: str, path: str) -> None:
            if content is None:
                self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=identity)
            elif path.endswith(LARGE):
                digest = hashlib.sha256(content).hexdigest()
                hub.large[digest] = content
                linked = {
                    "X_Linked_Etag": f'"{digest}"',
                    "X_Linked_Size": str(len(content)),
                    "X_Repo_Commit": identity,
                }
                self.answer(b"", 302, Location=f"{elsewhere}/large/{digest}", **linked)
            else:
                self.answer(content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=identity)

        def send_large(self, digest: str) -> None:
            content = hub.large[digest]
            if begin := re.match(r"bytes=(\d+)-", self.headers.get("Range", "")):
                rest = content[int(begin[1]) :]
                self.answer(rest, 206, Content_Range=f"bytes {begin[1]}-{len(content) - 1}/{len(content)}")
            else:
                self.answer(content, ETag=f'"{digest}"')

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    elsewhere = hub.address.replace("127.0.0.1", "localhost")  # as on the Hub, large files come from another host
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
