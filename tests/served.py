"""`csmae serve` as a process of its own, and a browser to look at it with."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny_runs import free_port

BROWSER = "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
START_SECONDS = 250


class Eavesdropper:
    """A proxy that answers nobody: whatever a process wants of the network without being on this machine comes to it."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address = "http://{}:{}".format(*self.server.getsockname())
        self.heard: list[bytes] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                self.heard.append(connection.recv(200))


class Served:
    """The page, running."""

    def __init__(self, archive: Path, *more: str, port: int | None = None):
        self.port = port or free_port()
        self.address = f"http://127.0.0.1:{self.port}/"
        self.proxy = Eavesdropper()
        environment = {
            **os.environ,
            **dict.fromkeys(
                ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), self.proxy.address
            ),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        environment.pop("GRADIO_ANALYTICS_ENABLED", None)
        environment.pop("HF_HUB_OFFLINE", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "csmae_hf.commands.main", "serve", str(archive), "--port", str(self.port), *more],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""
        killer = threading.Timer(START_SECONDS, self.process.kill)
        killer.start()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if line.startswith("Explorer:"):
                break
        killer.cancel()
        if self.process.poll() is not None:
            raise RuntimeError(f"csmae serve ended with {self.process.returncode}:\n{self.said}")
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait(timeout=20)

    def listens_at(self) -> list[str]:
        """Addresses on which the port is open, as the kernel has them."""
        found = []
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in Path(table).read_text().splitlines()[1:]:
                local, state = line.split()[1], line.split()[3]
                if state == "0A" and int(local.rpartition(":")[2], 16) == self.port:
                    found.append(local.rpartition(":")[0])
        return found


@contextmanager
def browser() -> Iterator[object]:
    """Debian's Chromium; the test is skipped where it, or Playwright, is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    program = shutil.which("chromium") or (BROWSER if Path(BROWSER).exists() else None)
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with api.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=FLAGS)
        yield opened
        opened.close()


def outside(requests: Sequence[str], address: str) -> list[str]:
    """Requests that left the page's own server."""
    return [url for url in requests if not url.startswith((address, "data:", "blob:"))]
