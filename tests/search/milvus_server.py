"""Run a command beside a Milvus server, in a network of their own.

    unshare --net --map-root-user PYTHON milvus_server.py FOLDER COMMAND...

PYTHON has the wheel `milvus`, whose server listens on all interfaces; hence the network namespace, whose only interface is brought up
here. The command gets `--uri` and the server's address as its last arguments. The server is the one process that is started here, and
it is ended here.
"""

import fcntl
import os
import socket
import struct
import subprocess
import sys

SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1


def bring_up_loopback():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stream:
        fcntl.ioctl(stream, SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", IFF_UP, b""))


def main():
    from milvus import MilvusServer, MilvusServerConfig

    folder, *command = sys.argv[1:]
    bring_up_loopback()
    server = MilvusServer(MilvusServerConfig(), wait_for_started=False)
    server.set_base_dir(os.path.join(folder, "milvus"))
    server.start()
    try:
        server.wait_started(120_000)
        uri = f"http://127.0.0.1:{server.listen_port}"
        return subprocess.run([*command, "--uri", uri], check=False, timeout=200).returncode
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
