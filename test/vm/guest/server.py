"""A memkv server of the guest, on its own configuration, and what one asks it.

Threading: start, stop and kill from one thread. Ownership: ends only the process it started. Errors: exits
the script with the sentence and the server's log.
"""

from __future__ import annotations

import pathlib
import select
import signal
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python"))

from development_license import environment as licensed  # noqa: E402
import memkv_page_client as page  # noqa: E402

KEY_TEXT = "0f1e2d3c4b5a69788796a5b4c3d2e1f00123456789abcdef0fedcba987654321"
PORT = 9900
# A start takes a second or two here, and a hundred times as long on a host that has no time for its guest.
START_S = 400.0
STOP_S = 120.0
LOG_LINES = 40
GDB_S = 200.0


class Server:
    """One `memkv start`, started again as often as wanted. The guest's network is its own, the port free."""

    def __init__(self, program: str, configuration: str, directory: pathlib.Path) -> None:
        self.program = program
        self._configuration = directory / "config.yaml"
        self._log = directory / "server.log"
        self._configuration.write_text(configuration, encoding="utf-8")
        self._process: subprocess.Popen | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        return self._process.pid

    def start(self) -> None:
        """Starts it and waits until it serves."""
        self.begin()
        self.must_serve()

    def begin(self) -> None:
        """Starts it and waits for nothing."""
        environment = licensed(self.program, keep=True, MEMKV_AUTH_KEY=KEY_TEXT)
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [self.program, "start", "--config", str(self._configuration), "--log-file", "none"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
            )

    def must_serve(self) -> None:
        """Waits until what was begun serves."""
        readable, _, _ = select.select([self._process.stdout], [], [], START_S)
        line = self._process.stdout.readline().decode() if readable else ""
        if not line.startswith("memkv: serving on "):
            took = f"ended with {self._process.poll()}" if self._process.poll() is not None else "still runs"
            self.fail(f"the server did not start within {START_S:g} s, and {took}: {line!r}\n{self.doing()}")

    def stop(self) -> None:
        """Ends it as an operator does."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.fail(f"the server did not stop within {STOP_S:g} s")
        if code != 0:
            self.fail(f"the server stopped with exit code {code}")
        self._process.stdout.close()

    def kill(self) -> None:
        """Ends it without a word."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def halt(self) -> None:
        """Lets it stand still. What its RDMA devices have begun goes on."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Ends halt()."""
        self._process.send_signal(signal.SIGCONT)

    def running(self) -> bool:
        """Whether it lives."""
        return self._process is not None and self._process.poll() is None

    def client(self, timeout_s: float = 60.0) -> page.Client:
        """A connection of one's own, with the keyed digest: Python leaves it to C, the other is slow."""
        return page.Client(
            "127.0.0.1", PORT, bytes.fromhex(KEY_TEXT), digest_kind=page.DIGEST_KEYED, timeout_s=timeout_s
        )

    def log(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.text().splitlines()[-LOG_LINES:])

    def text(self) -> str:
        """All of its log, from all starts."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def doing(self) -> str:
        """What each of its threads is at, in the kernel and, where gdb is to be had, in the program."""
        if not self.running():
            return ""
        told = []
        for task in sorted(pathlib.Path(f"/proc/{self._process.pid}/task").iterdir()):
            facts = [task.name]
            for name in ("comm", "wchan", "syscall", "stack"):
                try:
                    facts.append((task / name).read_text(encoding="utf-8", errors="replace").strip())
                except OSError as problem:
                    facts.append(f"{name}: {problem.strerror}")
            told.append(" ".join(facts))
        words = ["gdb", "-batch", "-p", str(self._process.pid), "-ex", "thread apply all bt 12"]
        try:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=GDB_S, check=False
            )
            told.append(done.stdout)
        except (OSError, subprocess.TimeoutExpired) as problem:
            told.append(f"gdb: {problem}")
        told.append("load of this machine: " + pathlib.Path("/proc/loadavg").read_text(encoding="ascii"))
        return "\n".join(told)

    def fail(self, what: str) -> None:
        """Ends the script."""
        if self.running():
            self.kill()
        sys.exit(f"{what}\n{self.log()}")
