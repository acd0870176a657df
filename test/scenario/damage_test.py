"""What a real server does with bytes that decayed on its drive, and what it says about the time of writes.

damage_test.py MEMKV    starts servers of its own, in file mode, on free ports
"""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))

from development_license import environment as licensed  # noqa: E402
from free_ports import free_port  # noqa: E402

MEMKV = sys.argv[1]
VALUE = bytes(range(256)) * 1024  # 256 KiB, found again in the file by its pattern
MARK = b"find me in the file of the drive"


class Server:
    """A server on one file; started again as often as wanted."""

    def __init__(self, folder, verify, *flags):
        self.folder, self.port = folder, free_port()
        self.drive = os.path.join(folder, "drive.dat")
        self.log_path = os.path.join(folder, "server.log")
        self.key = os.urandom(32).hex()
        self.flags = flags
        self.process = None
        with open(os.path.join(folder, "server.yaml"), "w", encoding="ascii") as file:
            file.write(
                f"network:\n  address: 127.0.0.1:{self.port}\n"
                "memory:\n  max_size: 64 MiB\n"
                f"storage:\n  mode: file\n  verify_on_read: {str(verify).lower()}\n"
                f"  drives:\n    - {{ media: {self.drive}, max_size: 64 MiB }}\n"
            )

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [
                    MEMKV,
                    "start",
                    "--config",
                    os.path.join(self.folder, "server.yaml"),
                    "--log-file",
                    "none",
                    *self.flags,
                ],
                env=licensed(MEMKV, keep=True, MEMKV_AUTH_KEY=self.key),
                stdout=log,
                stderr=log,
            )
        for _ in range(300):
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        sys.exit("the server did not start:\n" + self.log())

    def stop(self):
        self.process.terminate()
        if self.process.wait(timeout=30) != 0:
            sys.exit("the server did not stop in order:\n" + self.log())

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def metric(self, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port + 1}/v1/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[1]) for line in lines if line.startswith((name + " ", name + "{")))

    def client(self, *words, stdin=b"", **environment):
        return subprocess.run(
            [MEMKV, "client", *words],
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
            env={
                **licensed(MEMKV, keep=True),
                "MEMKV_AUTH_KEY": self.key,
                "MEMKV_SERVERS": f"127.0.0.1:{self.port}",
                **environment,
            },
        )


def expect(condition, what, detail=""):
    if not condition:
        sys.exit(f"damage_test: {what} failed\n{detail}")


def decay(server):
    """Flips one bit of the stored value while no server has the file."""
    with open(server.drive, "r+b") as file:
        content = file.read()
        at = content.find(MARK)
        expect(at >= 0, "finding the value in the file")
        file.seek(at + 100_000)
        byte = file.read(1)
        file.seek(at + 100_000)
        file.write(bytes([byte[0] ^ 0x20]))


def a_decayed_block_is_a_miss(verify, digest):
    """Whoever looks first, the drive's check or the digest's, the client never gets the bytes."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder, verify)
        server.start()
        value = MARK + VALUE
        stored = server.client("put", "block", stdin=value, MEMKV_DIGEST=digest)
        expect(stored.returncode == 0, "put", stored.stderr)
        expect(server.client("get", "block", MEMKV_DIGEST=digest).stdout == value, "get of a sound block")
        server.stop()
        decay(server)
        server.start()
        what = f"get of a decayed block, verify_on_read {verify}, digest {digest}"
        got = server.client("get", "block", MEMKV_DIGEST=digest)
        expect(got.returncode == 1 and got.stdout == b"", what, got.stderr)
        again = server.client("exists", "block")
        expect(again.stdout == b"block: missing\n", f"{what}: dropped", again.stdout + again.stderr)
        for name in ("memkv_corrupt_blocks_total", "memkv_drive_corrupt_blocks_total"):
            expect(server.metric(name) == 1, f"{what}: {name}", server.metric(name))
        stored = server.client("put", "block", stdin=value, MEMKV_DIGEST=digest)
        expect(stored.returncode == 0, "put in its place", stored.stderr)
        expect(server.client("get", "block", MEMKV_DIGEST=digest).stdout == value, "get of the new block")
        server.stop()
        lines = [line for line in server.log().splitlines() if "damaged blocks were found" in line]
        expect(len(lines) == 1 and " WARN " in lines[0] and "blocks=1" in lines[0], f"{what}: told", lines)


def writes_are_timed_when_asked():
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder, True, "--log-write-timing", "3600")
        server.start()
        for number in range(5):
            expect(server.client("put", f"key-{number}", stdin=VALUE).returncode == 0, "put")
        server.stop()
        lines = [line for line in server.log().splitlines() if "write timing" in line]
        expect(len(lines) == 1, "one line an interval", server.log())
        for field in ("blocks=1", f"bytes={len(VALUE)}", "receive_us=", "commit_us=", "total_us="):
            expect(field in lines[0], field, lines[0])
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder, True)
        server.start()
        expect(server.client("put", "key", stdin=VALUE).returncode == 0, "put")
        server.stop()
        expect("write timing" not in server.log(), "no timing unless asked", server.log())


def main():
    a_decayed_block_is_a_miss(verify=True, digest="crc32c")
    a_decayed_block_is_a_miss(verify=True, digest="keyed")
    a_decayed_block_is_a_miss(verify=False, digest="keyed")
    writes_are_timed_when_asked()
    print("damage_test: passed")


if __name__ == "__main__":
    main()
