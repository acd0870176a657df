"""A server of one's own for a test: `memkv start` in a temporary directory, on a free port of loopback.

Threading: any thread may ask; start and stop from one. Ownership: ends only the process it
started and removes only its own directory.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))

from development_license import environment as licensed  # noqa: E402
import memkv_page_client as page  # noqa: E402
import page_client_test as checks  # noqa: E402

KEY_TEXT = "0f1e2d3c4b5a69788796a5b4c3d2e1f00123456789abcdef0fedcba987654321"
KEY = bytes.fromhex(KEY_TEXT)
KIB = 1024
MIB = 1024 * KIB
SECOND_NS = 10**9
# Generous: other work on the machine must not fail a test.
START_S = 120.0
STOP_S = 120.0


class Server:
    """One `memkv start`. `network` and `storage` are further keys of the configuration, in flow style."""

    def __init__(
        self,
        program: str,
        mode: str = "memory",
        drive_mib: int = 64,
        pool_mib: int = 16,
        network: str = "",
        storage: str = "",
        host: str = "127.0.0.1",
    ) -> None:
        self.program = program
        self.drive_bytes = drive_mib * MIB
        self.pool_bytes = pool_mib * MIB
        self._keeper = tempfile.TemporaryDirectory(prefix="memkv-security-")
        self.directory = pathlib.Path(self._keeper.name)
        media = "memory" if mode == "memory" else str(self.directory / "drive0")
        self._config = self.directory / "config.yaml"
        self._config.write_text(
            f'network: {{ address: "{host}:0"{", " + network if network else ""} }}\n'
            f"memory: {{ max_size: {pool_mib} MiB, block_size: 1 MiB }}\n"
            f"storage: {{ mode: {mode}, shard_size: 4 KiB, drives: "
            f"[{{ media: {media}, max_size: {drive_mib} MiB }}]{', ' + storage if storage else ''} }}\n",
            encoding="utf-8",
        )
        self._process: subprocess.Popen | None = None
        self.port = 0

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._process.pid

    @property
    def admin_port(self) -> int:
        """Where the administration endpoint answers."""
        return self.port + 1

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts it and waits until it serves."""
        with open(self.directory / "errors", "ab") as errors:
            self._process = subprocess.Popen(
                [self.program, "start", "--config", str(self._config),
                 "--log-file", str(self.directory / "log")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=licensed(self.program, MEMKV_AUTH_KEY=KEY_TEXT),
            )
        readable, _, _ = select.select([self._process.stdout], [], [], START_S)
        line = self._process.stdout.readline().decode() if readable else ""
        if not line.startswith("memkv: serving on "):
            self.kill()
            raise AssertionError(f"the server did not start: {line!r}\n{self.log()}")
        self.port = int(line.rsplit(":", 1)[1])

    def stop(self) -> int:
        """Ends it as an operator does; returns its exit code."""
        process, self._process = self._process, None
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()

    def kill(self) -> None:
        """Ends it without a word."""
        process, self._process = self._process, None
        process.kill()
        process.wait()
        process.stdout.close()

    def close(self) -> None:
        """Ends what still runs and removes its directory."""
        if self._process is not None:
            self.kill()
        self._keeper.cleanup()

    def log(self) -> str:
        """What it has logged so far."""
        text = ""
        for name in ("errors", "log"):
            with contextlib.suppress(OSError):
                text += (self.directory / name).read_text(encoding="utf-8", errors="replace")[-4000:]
        return text

    def memory(self) -> int:
        """RssAnon and RssShmem in bytes: what the server's promise about memory is about."""
        total = 0
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith(("RssAnon:", "RssShmem:")):
                    total += int(line.split()[1]) * KIB
        return total

    def memory_allowed(self, connections: int) -> int:
        """The promise: pool + memory-mode data + index + 64 MiB + 16 KiB a connection. The index of these
        small drives is left out of the sum, so the bound is stricter than promised."""
        return self.pool_bytes + self.drive_bytes + 64 * MIB + connections * 16 * KIB

    def limit_descriptors(self, count: int) -> int:
        """From now on it may have so many descriptors open; returns how many it could have before."""
        soft, hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (count, hard))
        return soft

    def descriptors(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def client(
        self, kind: int = page.DIGEST_CRC32C, namespace: bytes = b"", timeout_s: float = 20.0
    ) -> page.Client:
        """An honest client, connected."""
        return page.Client("127.0.0.1", self.port, KEY, namespace, kind, timeout_s)

    def target(self, namespace: bytes = b"", port: int | None = None) -> checks.Target:
        """The server as the page's checks see it."""
        return checks.Target(
            "127.0.0.1", self.port if port is None else port, KEY, namespace, 0, 0, page.VALUE_BYTES_MAX
        )

    def raw(self, namespace: bytes = b"", port: int | None = None) -> checks.Raw:
        """A connection whose bytes the test writes itself."""
        return checks.Raw(self.target(namespace, port))


IP_BIND_ADDRESS_NO_PORT = 24  # of Linux; Python names it from 3.12 on


def connect_from(source: str, port: int, timeout_s: float) -> socket.socket:
    """A connection from this address of loopback. Its port is chosen by connect(): thousands of ports that
    bind() has chosen are lost to everybody on the machine for a minute, whatever their own address is."""
    one = socket.socket()
    try:
        one.settimeout(timeout_s)
        one.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        one.bind((source, 0))
        one.connect(("127.0.0.1", port))
    except OSError:
        one.close()
        raise
    return one


def program() -> str:
    """The program under test: the first argument, which unittest must not see."""
    if len(sys.argv) < 2:
        print(f"usage: {sys.argv[0]} MEMKV [TEST...]", file=sys.stderr)
        sys.exit(2)
    return str(pathlib.Path(sys.argv.pop(1)).resolve())


def seed() -> int:
    """The seed of this run, printed so that a failure can be repeated."""
    value = int(os.environ.get("MEMKV_TEST_SEED") or time.time_ns() & 0xFFFFFFFF)
    print(f"seed {value} (set MEMKV_TEST_SEED to repeat it)", flush=True)
    return value


def wait_until(condition, timeout_s: float, what: str) -> float:
    """Waits for a condition; returns how long it took, AssertionError when it never came."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > timeout_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - begin
