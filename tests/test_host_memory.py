"""Memory that was given back is there for the next tensor."""

import subprocess
import sys

import pytest

CODE = """
import resource, sys, torch
from csmae_hf.host_memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    print("cannot")
    sys.exit()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24).sum()  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(min(faults() for _ in range(5)))
"""


def pages(mode: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", CODE, mode], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of other systems has no such switch")
def test_freed_memory_is_not_cleared_again() -> None:
    kept = pages("keep")
    if kept == "cannot":
        pytest.skip("not glibc")
    assert int(kept) < 10 < int(pages("return")), "without it the system clears every page, huge ones included"


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from csmae_hf import host_memory

    def no_library(name: object) -> object:
        raise OSError("no such library")

    monkeypatch.setattr(host_memory.ctypes, "CDLL", no_library)
    assert not host_memory.keep_freed_memory()
    monkeypatch.setattr(host_memory.sys, "platform", "darwin")
    assert not host_memory.keep_freed_memory()
