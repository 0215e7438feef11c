#!/usr/bin/env bash
# Finding: an LMDB whose data file was replaced cannot be opened beside a reader of the old one, although it is another file.
#
# Versions: lmdb 3.0.0 (py-lmdb; LMDB 0.9.36).
# Guess: py-lmdb refuses to open the same environment twice in a process; a data file put in the place of another by os.replace is another
#        file, with another inode, so it opens.
# Seen:  it is refused as "already open in this process", also with lock=False and readonly=True, as long as the old lock file lies beside
#        it. With the lock file gone as well the new data open at once, beside the old reader, which goes on reading the old values.
# Why it matters here: archives of satellite tiles (BigEarthNet) are LMDBs of tens of gigabytes that are rebuilt beside the old one and moved
#        into its place, while a notebook or a training holds the old one open. It then sees an error that names the wrong cause, and
#        the obvious remedy, to close whatever has it open, is not needed.
# This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet lmdb==3.0.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import os

import lmdb

READING = {"subdir": False, "readonly": True, "lock": False}


def write(name: str, value: bytes) -> None:
    environment = lmdb.open(name, subdir=False, map_size=1 << 20)
    with environment.begin(write=True) as transaction:
        transaction.put(b"tile", value)
    environment.close()


def read(environment: lmdb.Environment) -> bytes:
    with environment.begin() as transaction:
        return bytes(transaction.get(b"tile"))


write("store.mdb", b"old")
write("rebuilt.mdb", b"new")
old = lmdb.open("store.mdb", **READING)
before = os.stat("store.mdb").st_ino
os.replace("rebuilt.mdb", "store.mdb")
assert os.stat("store.mdb").st_ino != before
try:
    lmdb.open("store.mdb", **READING)
except lmdb.Error as error:
    said = str(error)
    print("another data file, the old lock file:", said)
else:
    raise SystemExit("Changed: the replaced store opens beside its old lock file.")
assert "already open in this process" in said, said
os.remove("store.mdb-lock")
new = lmdb.open("store.mdb", **READING)
print("another data file, no lock file:", read(new), "while the old reader reads", read(old))
assert (read(new), read(old)) == (b"new", b"old")
PYTHON
