"""A loopback Hugging Face Hub for tests: real HTTP to the unmodified clients, and failures on request.

It speaks what huggingface_hub, transformers and datasets call to create a repository, push to it, look at it and load from it.
It is a double, not a hub: two tokens, no quotas, everything in memory, nothing durable.

    with HubDouble() as hub:            # binds 127.0.0.1 on a free port, serves from a thread
        environment = hub.env(tmp_path)     # HF_ENDPOINT, HF_TOKEN, HF_HOME, ... of a child process
        hub.fail("PUT", "/_lfs/", drop="before")    # the next upload's connection is dropped
        ...
        hub.log                         # [(method, path, status), ...] in the order of the answers

HF_ENDPOINT and its like are read when huggingface_hub is imported, so clients run in processes of their own. Two ways of upload,
as on the Hub: LFS, and Xet (`xet_dir=`), where the token endpoint answers `local://DIR` and the real hf_xet stores there.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from hub_handler import HubHandler
from hub_repos import LFS_SUFFIXES, Blob, Fault, Repo, xet_file_hashes

HUB_SETTINGS = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_MODULES_CACHE", "HF_HUB_CACHE", "HF_DATASETS_CACHE")


class HubDouble:
    """The server. `token` may write, `read_token` may only read; strangers see public repositories.

    Args:
        user: Who the tokens belong to.
        lfs_threshold: Files of at least so many bytes are large.
        xet_dir: Offer Xet storage there.
        lfs_chunk: Ask for uploads in parts of so many bytes.
    """

    token = "hf_DoubleOfTheHubWriteToken"
    read_token = "hf_DoubleOfTheHubReadToken"

    def __init__(
        self,
        *,
        user: str = "tester",
        lfs_threshold: int = 10 << 20,
        xet_dir: str | os.PathLike[str] | None = None,
        lfs_chunk: int | None = None,
    ):
        self.user, self.lfs_threshold, self.lfs_chunk = user, lfs_threshold, lfs_chunk
        self.xet_dir = Path(xet_dir).resolve() if xet_dir else None
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}  # content of LFS uploads by sha256
        self.parts: dict[tuple[str, int], bytes] = {}
        self.log: list[tuple[str, str, int]] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        handler = type("Handler", (HubHandler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.cdn = f"http://localhost:{self.port}"  # another host name, so that clients must drop their token

    def __enter__(self) -> "HubDouble":
        threading.Thread(target=self.server.serve_forever, args=(0.05,), name="hub-double", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        for fault in self.faults:
            if fault.hold:
                fault.hold.set()
        self.server.shutdown()
        self.server.server_close()

    def env(self, home: str | os.PathLike[str], **changes: str) -> dict[str, str]:
        """Environment of a child process that has this Hub and a cache of its own; `changes` come last."""
        environment = {name: value for name, value in os.environ.items() if name not in HUB_SETTINGS}
        environment |= {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": self.token,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }
        if self.xet_dir is None:
            environment["HF_HUB_DISABLE_XET"] = "1"
        return environment | changes

    def fail(self, method: str, path: str, **how: Any) -> Fault:
        """Let coming requests fail; see [`Fault`]."""
        self.faults.append(Fault(method, path, **how))
        return self.faults[-1]

    @contextlib.contextmanager
    def failing(self, method: str, path: str, **how: Any) -> Iterator[Fault]:
        """Let requests fail within a `with` block."""
        fault = self.fail(method, path, **how)
        try:
            yield fault
        finally:
            if fault.hold:
                fault.hold.set()
            self.faults.remove(fault)

    def files(self, name: str, revision: str = "main", repo_type: str = "model") -> dict[str, bytes]:
        """Content of every file of a repository by path, `.gitattributes` left out."""
        commit = self.repos[(repo_type, name)].resolve(revision)
        if commit is None:
            raise KeyError(revision)
        return {path: self.content(blob) for path, blob in commit.files.items() if path != ".gitattributes"}

    def content(self, blob: Blob) -> bytes:
        """Bytes of a file that is not kept by Xet."""
        return self.objects[blob.sha256] if blob.sha256 else blob.data or b""

    def is_large(self, path: str, size: int) -> bool:
        return size > 0 and (size >= self.lfs_threshold or path.lower().endswith(LFS_SUFFIXES))

    def xet_hash(self, sha256: str) -> str | None:
        if self.xet_dir is None or sha256 in self.objects:
            return None
        return xet_file_hashes(self.xet_dir).get(sha256)
