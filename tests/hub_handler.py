"""The answers of the loopback Hub of `hub_double.py`: one method for each endpoint that the clients call."""

import base64
import contextlib
import hashlib
import json
import re
import socket
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from hub_repos import (
    LFS_SUFFIXES,
    TYPES,
    Blob,
    Commit,
    HubError,
    Repo,
    apply_commit,
    find_metadata_errors,
    list_tree,
)

if TYPE_CHECKING:
    from hub_double import HubDouble


class HubHandler(BaseHTTPRequestHandler):
    """Answers one connection."""

    hub: "HubDouble"
    protocol_version = "HTTP/1.1"
    server_version = "HubDouble"
    timeout = 30  # of a connection whose client was killed
    _repo_routes = r"/api/(?P<t>models|datasets|spaces)/(?P<r>[^/]+/[^/]+)"
    ROUTES: ClassVar[list[tuple[str, re.Pattern[str], str]]] = [
        (method, re.compile(pattern + r"\Z"), name)
        for method, pattern, name in (
            ("GET", r"/api/whoami-v2", "whoami"),
            ("POST", r"/api/validate-yaml", "validate_yaml"),
            ("POST", r"/api/repos/create", "create"),
            ("DELETE", r"/api/repos/delete", "delete"),
            ("GET", r"/api/(?P<t>models|datasets|spaces)", "list_repos"),
            ("POST", _repo_routes + r"/preupload/(?P<rev>[^/]+)", "preupload"),
            ("POST", _repo_routes + r"/commit/(?P<rev>[^/]+)", "commit"),
            ("POST", _repo_routes + r"/paths-info/(?P<rev>[^/]+)", "paths_info"),
            ("GET", _repo_routes + r"/tree/(?P<rev>[^/]+)(?:/(?P<p>.*))?", "tree"),
            ("GET", _repo_routes + r"/refs", "refs"),
            ("GET", _repo_routes + r"/commits/(?P<rev>[^/]+)", "commits"),
            ("POST", _repo_routes + r"/branch/(?P<b>[^/]+)", "create_branch"),
            ("DELETE", _repo_routes + r"/branch/(?P<b>[^/]+)", "delete_branch"),
            ("POST", _repo_routes + r"/tag/(?P<rev>[^/]+)", "create_tag"),
            ("GET", _repo_routes + r"/xet-(?P<kind>read|write)-token/(?P<rev>[^/]+)", "xet_token"),
            ("GET", _repo_routes + r"(?:/revision/(?P<rev>[^/]+))?", "info"),
            ("POST", r"/(?:(?P<t>datasets|spaces)/)?(?P<r>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "lfs_batch"),
            ("POST", r"/_lfs/verify", "lfs_verify"),
            ("PUT", r"/_lfs/(?P<oid>[0-9a-f]{64})(?:/(?P<n>\d+))?", "lfs_put"),
            ("POST", r"/_lfs/(?P<oid>[0-9a-f]{64})/complete", "lfs_complete"),
            ("GET", r"/_cdn/(?P<oid>[0-9a-f]{64})", "download"),
            (
                "GET",
                r"/(?:(?P<t>datasets|spaces)/)?(?P<r>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<p>.+)",
                "resolve",
            ),
        )
    ]

    # plumbing

    def log_message(self, *arguments: object) -> None:
        """The hub's own log has it."""

    def do_GET(self) -> None:
        """Answer any request: fail it if that was asked for, else route it."""
        fault = next((fault for fault in self.hub.faults if fault.applies(self.command, self.path)), None)
        self.fault = fault
        if fault and fault.hold:
            fault.hold.wait(timeout=60)
        if fault and fault.drop == "before":
            return self._drop()
        try:
            self._route(self._body())
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True  # the client has gone

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 (the names http.server calls)

    def _route(self, body: bytes) -> None:
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        method = "GET" if self.command == "HEAD" else self.command
        try:
            if self.fault and not self.fault.drop:
                raise HubError(self.fault.status, self.fault.code, "failure on request", None, **self.fault.headers)
            for verb, pattern, name in self.ROUTES:
                if verb == method and (match := pattern.match(url.path)):
                    arguments = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
                    with self.hub.lock:
                        getattr(self, name)(body=body, **arguments)
                    return
            raise HubError(404, None, f"the double has no route for {self.command} {url.path}")
        except HubError as error:
            headers = {"X-Error-Message": str(error), **error.headers}
            if error.code:
                headers["X-Error-Code"] = error.code
            self._json(error.body or {"error": str(error)}, error.status, **headers)

    def _drop(self) -> None:
        self.hub.log.append((self.command, self.path, 0))
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        drop = self.fault.drop if self.fault else None
        if drop == "after":
            return self._drop()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.hub.log.append((self.command, self.path, status))
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if drop == "middle" else body)
        if drop == "middle":
            self._drop()

    def _json(self, value: Any, status: int = 200, **headers: str) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})

    # who asks, and for what

    def _may_read(self) -> bool:
        return self.headers.get("Authorization") in [f"Bearer {self.hub.token}", f"Bearer {self.hub.read_token}"]

    def _need_write(self) -> None:
        if not self._may_read():
            raise HubError(401, None, "Invalid username or password.")
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            raise HubError(403, None, "Forbidden: this token may not write.")

    def _repo(self, t: str, r: str) -> Repo:
        repo = self.hub.repos.get((TYPES[t], r))
        if repo is None or (repo.private and not self._may_read()):
            # the Hub does not tell a stranger whether a private repository exists
            raise HubError(404 if self._may_read() else 401, "RepoNotFound", "Repository not found")
        return repo

    def _commit(self, repo: Repo, revision: str) -> Commit:
        commit = repo.resolve(revision)
        if commit is None:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    # accounts and repositories

    def whoami(self, body: bytes) -> None:
        if not self._may_read():
            raise HubError(401, None, "Invalid username or password.")
        name = self.hub.user
        token = {"type": "access_token", "accessToken": {"displayName": "double", "role": "write"}}
        self._json({"type": "user", "id": "0" * 24, "name": name, "fullname": name, "orgs": [], "auth": token})

    def validate_yaml(self, body: bytes) -> None:
        content, errors = json.loads(body)["content"], []
        header = re.match(r"---\r?\n(.*?)\r?\n---", content, flags=re.DOTALL)
        try:
            metadata = yaml.safe_load(header[1]) if header else None
        except yaml.YAMLError as error:
            metadata, errors = None, [str(error)]
        else:
            if header and not isinstance(metadata, dict):
                errors = ["The YAML header must be a mapping."]
            elif metadata:
                errors = find_metadata_errors(metadata)
        warnings = [] if header else [{"message": "empty or missing yaml metadata in repo card"}]
        answer = {"errors": [{"message": message} for message in errors], "warnings": warnings}
        if errors:
            raise HubError(400, None, "Invalid metadata", answer)
        self._json(answer)

    def create(self, body: bytes) -> None:
        self._need_write()
        wanted = json.loads(body)
        kind, name = wanted.get("type") or "model", f"{wanted.get('organization') or self.hub.user}/{wanted['name']}"
        answer = {"url": f"{self.hub.url}/{_url_prefix(kind)}{name}", "name": name, "id": name}
        if (kind, name) in self.hub.repos:
            return self._json({"error": f"You already created this {kind} repo", **answer}, 409)
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        repo = self.hub.repos[(kind, name)] = Repo(name, kind, private)
        attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
        repo.add_commit("main", "initial commit", "", {".gitattributes": Blob.regular(attributes.encode())})
        self._json(answer)

    def delete(self, body: bytes) -> None:
        self._need_write()
        wanted = json.loads(body)
        key = (wanted.get("type") or "model", f"{wanted.get('organization') or self.hub.user}/{wanted['name']}")
        if self.hub.repos.pop(key, None) is None:
            raise HubError(404, "RepoNotFound", "Repository not found")
        self._json({})

    def list_repos(self, body: bytes, t: str) -> None:
        author = self.query.get("author", "")
        found = []
        for (kind, name), repo in sorted(self.hub.repos.items()):
            if kind == TYPES[t] and name.startswith(author) and (not repo.private or self._may_read()):
                found.append(repo.summary(self._commit(repo, "main")))
        self._json(found)

    # reading

    def info(self, body: bytes, t: str, r: str, rev: str = "main") -> None:
        repo = self._repo(t, r)
        self._json(repo.summary(self._commit(repo, rev), blobs="blobs" in self.query))

    def tree(self, body: bytes, t: str, r: str, rev: str, p: str = "") -> None:
        commit = self._commit(self._repo(t, r), rev)
        recursive = self.query.get("recursive", "").lower() in ("true", "1")
        entries = list_tree(commit, p, recursive, self.hub.xet_hash)
        if p and not entries:
            raise HubError(404, "EntryNotFound", f'"{p}" does not exist on "{rev}"')
        self._json(entries)

    def paths_info(self, body: bytes, t: str, r: str, rev: str) -> None:
        commit = self._commit(self._repo(t, r), rev)
        form = "json" not in self.headers.get("Content-Type", "")
        paths = parse_qs(body.decode()).get("paths", []) if form else json.loads(body)["paths"]
        found = {path: commit.files[path] for path in paths if path in commit.files}
        xet_hash = self.hub.xet_hash
        self._json(
            [blob.as_entry(path, xet_hash(blob.sha256) if blob.sha256 else None) for path, blob in found.items()]
        )

    def refs(self, body: bytes, t: str, r: str) -> None:
        repo = self._repo(t, r)
        shown = {
            kind: [{"name": name, "ref": f"refs/{ref}/{name}", "targetCommit": oid} for name, oid in names.items()]
            for kind, ref, names in (("branches", "heads", repo.branches), ("tags", "tags", repo.tags))
        }
        self._json({**shown, "converts": [], "pullRequests": []})

    def commits(self, body: bytes, t: str, r: str, rev: str) -> None:
        repo = self._repo(t, r)
        shown = []
        for commit in repo.history(self._commit(repo, rev)):
            author = [{"user": self.hub.user}]
            shown.append(
                {
                    "id": commit.oid,
                    "title": commit.title,
                    "message": commit.message,
                    "date": commit.date,
                    "authors": author,
                }
            )
        self._json(shown)

    def resolve(self, body: bytes, r: str, rev: str, p: str, t: str = "models") -> None:
        repo = self._repo(t, r)
        commit = self._commit(repo, rev)
        headers = {"X-Repo-Commit": commit.oid}
        blob = commit.files.get(p)
        if blob is None:
            raise HubError(404, "EntryNotFound", "Entry not found", None, **headers)
        headers |= {"Accept-Ranges": "bytes", "X-Linked-Size": str(blob.size)}
        if blob.sha256 is None:
            return self._bytes(blob.data or b"", {**headers, "ETag": f'"{blob.oid}"'})
        headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "Location": f"{self.hub.cdn}/_cdn/{blob.sha256}"}
        if xet := self.hub.xet_hash(blob.sha256):
            token_url = f"{self.hub.url}/api/{repo.type}s/{repo.id}/xet-read-token/{commit.oid}"
            headers |= {"X-Xet-Hash": xet, "Link": f'<{token_url}>; rel="xet-auth"'}
        self._send(302, b"", headers)

    def _bytes(self, data: bytes, headers: dict[str, str]) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if match is None:
            return self._send(200, data, headers)
        first, last = int(match[1]), min(int(match[2] or len(data) - 1), len(data) - 1)
        if first > last:
            return self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        headers |= {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
        self._send(206, data[first : last + 1], headers)

    # writing

    def preupload(self, body: bytes, t: str, r: str, rev: str) -> None:
        self._need_write()
        commit = self._commit(self._repo(t, r), rev)
        answers = []
        for file in json.loads(body)["files"]:
            old = commit.files.get(file["path"])
            mode = "lfs" if self.hub.is_large(file["path"], file["size"]) else "regular"
            oid = (old.sha256 or old.oid) if old else None
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": answers, "commitOid": commit.oid})

    def commit(self, body: bytes, t: str, r: str, rev: str) -> None:
        self._need_write()
        repo = self._repo(t, r)
        operations = [json.loads(line) for line in body.splitlines() if line.strip()]
        for operation in operations:
            if operation["key"] == "file" and operation["value"].get("encoding") == "base64":
                operation["value"]["content"] = base64.b64decode(operation["value"]["content"])
        new = apply_commit(repo, rev, operations, self._large_blob)
        url = f"{self.hub.url}/{_url_prefix(repo.type)}{repo.id}/commit/{new.oid}"
        self._json({"success": True, "commitOid": new.oid, "commitUrl": url, "hookOutput": ""})

    def _large_blob(self, value: dict) -> Blob:
        data = self.hub.objects.get(value["oid"])
        if data is None and self.hub.xet_hash(value["oid"]) is None:
            raise HubError(400, None, f"LFS pointer pointed to a file that does not exist: {value['path']}")
        size = value.get("size")
        return Blob.large(value["oid"], len(data or b"") if size is None else size)

    def create_branch(self, body: bytes, t: str, r: str, b: str) -> None:
        self._need_write()
        repo = self._repo(t, r)
        if b in repo.branches:
            raise HubError(409, None, f"Reference already exists: {b}")
        repo.branches[b] = self._commit(repo, json.loads(body or b"{}").get("startingPoint") or "main").oid
        self._json({})

    def delete_branch(self, body: bytes, t: str, r: str, b: str) -> None:
        self._need_write()
        if self._repo(t, r).branches.pop(b, None) is None:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {b}")
        self._json({})

    def create_tag(self, body: bytes, t: str, r: str, rev: str) -> None:
        self._need_write()
        repo, tag = self._repo(t, r), json.loads(body)["tag"]
        if tag in repo.tags:
            raise HubError(409, None, "Tag reference exists already")
        repo.tags[tag] = self._commit(repo, rev).oid
        self._json({})

    # large files

    def lfs_batch(self, body: bytes, r: str, t: str = "models") -> None:
        self._need_write()
        self._repo(t, r)
        wanted = json.loads(body)
        items = [{"oid": item["oid"], "size": item["size"]} for item in wanted["objects"]]
        if self.hub.xet_dir is not None and "xet" in wanted.get("transfers", ()):  # huggingface_hub 2 does not ask
            return self._json({"transfer": "xet", "objects": items})
        for item in items:
            if item["oid"] not in self.hub.objects:
                upload = self._upload_action(item["oid"], item["size"])
                item["actions"] = {"upload": upload, "verify": {"href": f"{self.hub.url}/_lfs/verify"}}
        content_type = {"Content-Type": "application/vnd.git-lfs+json"}
        self._json({"transfer": "basic", "objects": items}, **content_type)

    def _upload_action(self, oid: str, size: int) -> dict[str, Any]:
        place, chunk = f"{self.hub.url}/_lfs/{oid}", self.hub.lfs_chunk
        if not chunk or size <= chunk:
            return {"href": place}
        parts = {str(i + 1): f"{self.hub.cdn}/_lfs/{oid}/{i + 1}" for i in range(-(-size // chunk))}
        return {"href": f"{place}/complete", "header": {"chunk_size": str(chunk), **parts}}

    def _keep(self, oid: str, data: bytes) -> None:
        if hashlib.sha256(data).hexdigest() != oid:
            raise HubError(400, None, "sha256 of the upload does not match its oid")
        self.hub.objects[oid] = data

    def lfs_put(self, body: bytes, oid: str, n: str | None = None) -> None:
        if n is None:
            self._keep(oid, body)
        else:
            self.hub.parts[(oid, int(n))] = body
        self._send(200, b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'})

    def lfs_complete(self, body: bytes, oid: str) -> None:
        parts = [self.hub.parts.pop((oid, part["partNumber"])) for part in json.loads(body)["parts"]]
        self._keep(oid, b"".join(parts))
        self._json({})

    def lfs_verify(self, body: bytes) -> None:
        self._need_write()
        wanted = json.loads(body)
        if len(self.hub.objects.get(wanted["oid"], b"")) != wanted["size"]:
            raise HubError(404, None, "object not found")
        self._json({})

    def download(self, body: bytes, oid: str) -> None:
        if self.headers.get("Authorization"):
            raise HubError(400, None, "a client must not send its Hub token to the CDN")
        if oid not in self.hub.objects:
            raise HubError(404, None, "no such object")
        self._bytes(self.hub.objects[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})

    def xet_token(self, body: bytes, t: str, r: str, kind: str, rev: str) -> None:
        if kind == "write":
            self._need_write()
        self._repo(t, r)
        if self.hub.xet_dir is None:
            raise HubError(404, None, "this double was started without Xet storage")
        store, expires = f"local://{self.hub.xet_dir}", int(time.time()) + 3600
        headers = {
            "X-Xet-Cas-Url": store,
            "X-Xet-Access-Token": "xet_double",
            "X-Xet-Token-Expiration": str(expires),
        }
        self._json({"casUrl": store, "accessToken": "xet_double", "exp": expires}, **headers)


def _url_prefix(repo_type: str) -> str:
    return "" if repo_type == "model" else f"{repo_type}s/"
