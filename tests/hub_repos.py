"""What the loopback Hub of `hub_double.py` keeps: repositories, commits, files, and the failures it is told to make."""

import hashlib
import json
import re
import struct
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import yaml

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".onnx", ".npy", ".npz", ".parquet", ".faiss", ".tar", ".zip", ".png")
TYPES = {"models": "model", "datasets": "dataset", "spaces": "space"}


class HubError(Exception):
    """An answer that is not 200: status, the Hub's error code, headers and body."""

    def __init__(self, status: int, code: str | None, message: str, body: dict | None = None, **headers: str):
        super().__init__(message)
        self.status, self.code, self.headers, self.body = status, code, headers, body


@dataclass
class Blob:
    """One file of one commit. `sha256` is set for files kept outside git (LFS, Xet)."""

    size: int
    oid: str
    data: bytes | None = None
    sha256: str | None = None

    @classmethod
    def regular(cls, data: bytes) -> "Blob":
        return cls(len(data), _git_oid(data), data)

    @classmethod
    def large(cls, sha256: str, size: int) -> "Blob":
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        return cls(size, _git_oid(pointer.encode()), None, sha256)

    def as_entry(self, path: str, xet: str | None = None) -> dict[str, Any]:
        """The file as the listings show it."""
        entry: dict[str, Any] = {"type": "file", "oid": self.oid, "size": self.size, "path": path}
        if self.sha256:
            entry["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": 134}
            if xet:
                entry["xetHash"] = xet
        return entry


@dataclass
class Commit:
    """A state of a repository."""

    oid: str
    title: str
    message: str
    parent: str | None
    files: dict[str, Blob]
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"))


@dataclass
class Repo:
    """A repository: commits, and the branches and tags that point at them."""

    id: str
    type: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> Commit | None:
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        return self.commits.get(self.branches.get(name) or self.tags.get(name) or name)

    def add_commit(self, branch: str, title: str, message: str, files: dict[str, Blob]) -> Commit:
        parent = self.branches.get(branch)
        content = sorted((path, blob.oid) for path, blob in files.items())
        seed = json.dumps([self.type, self.id, parent, title, time.time_ns(), content])
        commit = Commit(hashlib.sha1(seed.encode()).hexdigest(), title, message, parent, files)
        self.commits[commit.oid] = commit
        self.branches[branch] = commit.oid
        return commit

    def history(self, commit: Commit | None) -> list[Commit]:
        """A commit and its ancestors, newest first."""
        found = []
        while commit:
            found.append(commit)
            commit = self.commits.get(commit.parent) if commit.parent else None
        return found

    def summary(self, commit: Commit, blobs: bool = False) -> dict[str, Any]:
        """What the info and list endpoints say."""
        readme = commit.files.get("README.md")
        header = re.match(r"---\n(.*?)\n---\n", ((readme and readme.data) or b"").decode(), re.DOTALL)
        card = yaml.safe_load(header[1]) if header else {}
        siblings: list[dict[str, Any]] = []
        for path, blob in sorted(commit.files.items()):
            sibling: dict[str, Any] = {"rfilename": path}
            if blobs:
                sibling |= {"size": blob.size, "blobId": blob.oid}
                if blob.sha256:
                    sibling["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": 134}
            siblings.append(sibling)
        return {
            "_id": hashlib.md5(self.id.encode()).hexdigest()[:24],
            "id": self.id,
            "modelId": self.id,
            "author": self.id.split("/")[0],
            "sha": commit.oid,
            "lastModified": commit.date,
            "createdAt": commit.date,
            "private": self.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": siblings,
            **{name: card[name] for name in ("pipeline_tag", "library_name") if name in card},
        }


@dataclass
class Fault:
    """A failure to make on purpose.

    Attributes:
        method: HTTP method of the requests that fail.
        path: Regular expression, searched in their path.
        status: Answer this status; with `drop` it is not used.
        drop: Close the connection instead: `"before"` anything is read, `"after"` the request was carried out but before its
            answer, or in the `"middle"` of the answer's body.
        times: How many requests fail, in order of arrival.
        skip: How many go well before.
        code: `X-Error-Code` of the answer.
        headers: Further headers of the answer, such as `{"Retry-After": "0"}`.
        reached: Set when the first request fails.
        hold: The failing request waits for this, without an answer: time to kill the client.
    """

    method: str
    path: str
    status: int = 500
    drop: Literal["before", "after", "middle"] | None = None
    times: int = 1
    skip: int = 0
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    reached: threading.Event = field(default_factory=threading.Event)
    hold: threading.Event | None = None

    def applies(self, method: str, path: str) -> bool:
        """Whether this request is to fail; counts it."""
        if method != self.method or self.times < 1 or not re.search(self.path, path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        self.reached.set()
        return True


def apply_commit(repo: Repo, branch: str, operations: list[dict], large: Any) -> Commit:
    """Carry out the operations of a commit request.

    Args:
        repo: The repository.
        branch: Branch to commit to.
        operations: The request's lines, the header first.
        large: Function of an `lfsFile` operation's value that gives its `Blob`, or raises where nothing was uploaded.
    """
    base = repo.resolve(branch)
    if base is None or branch not in repo.branches:
        raise HubError(400, None, "can only commit to a branch")
    if not operations or operations[0]["key"] != "header":
        raise HubError(400, None, "the first line must be the header")
    header, files = operations[0]["value"], dict(base.files)
    if (expected := header.get("parentCommit")) and expected != base.oid:
        raise HubError(412, None, f"A commit has happened since. Please refresh and try again. ({base.oid})")
    for operation in operations[1:]:
        key, value = operation["key"], operation["value"]
        path = value["path"]
        if key == "file":
            files[path] = Blob.regular(value["content"])
        elif key == "lfsFile":
            files[path] = large(value)
        elif key == "deletedFile":
            if files.pop(path, None) is None:
                raise HubError(400, None, f"cannot delete {path}: no such file")
        elif key == "deletedFolder":
            files = {name: blob for name, blob in files.items() if not name.startswith(path.rstrip("/") + "/")}
        else:
            raise HubError(400, None, f"unknown operation {key}")
    return repo.add_commit(branch, header.get("summary") or "", header.get("description") or "", files)


def list_tree(commit: Commit, path: str, recursive: bool, xet_hash: Any) -> list[dict[str, Any]]:
    """Files and folders under a path."""
    prefix = path.rstrip("/") + "/" if path else ""
    entries: list[dict[str, Any]] = []
    folders = set()
    for name, blob in sorted(commit.files.items()):
        if not name.startswith(prefix):
            continue
        parents = name[len(prefix) :].split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            folder = prefix + "/".join(parents[:depth])
            if folder not in folders and (recursive or depth == 1):
                folders.add(folder)
                oid = hashlib.sha1(folder.encode()).hexdigest()
                entries.append({"type": "directory", "oid": oid, "size": 0, "path": folder})
        if recursive or not parents:
            entries.append(blob.as_entry(name, xet_hash(blob.sha256) if blob.sha256 else None))
    return entries


def find_metadata_errors(metadata: dict[str, Any]) -> list[str]:
    """What the Hub would refuse in the header of a card, as far as its documentation says."""
    errors = [f"{name} must be a string" for name in ("library_name", "pipeline_tag") if not _is_text(metadata, name)]
    for name in ("tags", "datasets", "language", "license"):
        value = metadata.get(name, [])
        if not isinstance(value, str) and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            errors.append(f"{name} must be a string or a list of strings")
    for entry in metadata.get("model-index") or []:
        if not isinstance(entry.get("name"), str):
            errors.append("model-index needs a name")
        for result in entry.get("results") or []:
            lacks = [f"task.{key}" for key in ("type",) if key not in result.get("task", {})]
            lacks += [f"dataset.{key}" for key in ("type", "name") if key not in result.get("dataset", {})]
            metrics = result.get("metrics") or [{}]
            lacks += [f"metrics.{key}" for key in ("type", "value") if any(key not in metric for metric in metrics)]
            errors += [f"model-index.results lacks {name}" for name in lacks]
    return errors


def _is_text(metadata: dict[str, Any], name: str) -> bool:
    return isinstance(metadata.get(name, ""), str)


def xet_file_hashes(store: Path) -> dict[str, str]:
    """Xet hash by sha256, read out of the shard files that hf_xet wrote under `store`."""
    known: dict[str, str] = {}
    for shard in store.rglob("*.mdb"):
        buffer = shard.read_bytes()
        place = 48  # shard header: 32-byte tag, u64 version, u64 footer size
        while place + 48 <= len(buffer):
            file_hash = buffer[place : place + 32]
            flags, entries = struct.unpack_from("<II", buffer, place + 32)
            if file_hash == b"\xff" * 32:  # end of the section
                break
            place += 48 + 48 * entries
            if flags & (1 << 31):  # verification entries, one for each segment
                place += 48 * entries
            if flags & (1 << 30):  # metadata: the sha256, in the same word order
                known[_xet_hex(buffer[place : place + 32])] = _xet_hex(file_hash)
                place += 48
    return known


def _git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _xet_hex(raw: bytes) -> str:
    """Xet prints a 32-byte hash as four little-endian u64 words."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))
