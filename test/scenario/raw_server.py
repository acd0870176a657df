"""A server on raw drives, and a model of what its blocks may be, for scenario tests.

The model keeps for each key the value that was acknowledged last, and those that may have been stored since
without an answer. A get may bring one of these or, where a drive went or a block was deleted, nothing.
Nothing else, ever: an older value is a lie.

Threading: one thread for a server and its model.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time

from loop_drives import wait_until_given_back

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))

from development_license import environment as licensed  # noqa: E402
from free_ports import free_port  # noqa: E402
from memkv_page_client import Client, ConnectionLost, Status, StatusError, key_id  # noqa: E402

# Longer than the server lets any request live; whoever waits longer waits for ever.
HUNG_S = 45
# Answers to a put, a delete or a get that say: not now, or that nobody knows whether it was done.
REFUSALS = (
    Status.Unavailable,
    Status.NoSpace,
    Status.Busy,
    Status.DeadlineExceeded,
    Status.Corrupt,
    Status.Internal,
)


class Wrong(Exception):
    """The server did what it must not do."""


class RawServer:
    """One server, started as often as wanted, on drives that memkv setup formatted."""

    def __init__(self, program, folder, drives, flap_threshold=5):
        self.program, self.folder, self.drives = program, folder, list(drives)
        self.key, self.port, self.process = os.urandom(32), free_port(), None
        self.log_path = os.path.join(folder, f"server{self.port}.log")
        self.config_path = os.path.join(folder, f"server{self.port}.yaml")
        self.run("setup", "--force", "--drives", *drives)
        self.configure(flap_threshold)

    def configure(self, flap_threshold):
        with open(self.config_path, "w", encoding="ascii") as file:
            file.write(
                f"network: {{ address: 127.0.0.1:{self.port} }}\n"
                "memory: { max_size: 32 MiB }\n"
                "storage:\n  mode: direct\n"
                f"  flap_threshold: {flap_threshold}\n  drives:\n"
            )
            for device in self.drives:
                file.write(f"    - media: {device}\n")

    def environment(self):
        return licensed(self.program, MEMKV_AUTH_KEY=self.key.hex())

    def run(self, *words):
        done = subprocess.run([self.program, *words], capture_output=True, timeout=120, check=False)
        if done.returncode != 0:
            raise Wrong(f"memkv {' '.join(words)} failed\n{done.stdout.decode()}{done.stderr.decode()}")
        return done.stdout.decode()

    def begin(self):
        """Starts the program and does not wait until it serves."""
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [self.program, "start", "--config", self.config_path, "--log-file", "none"],
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=self.environment(),
            )

    def start(self):
        self.begin()
        end = time.monotonic() + 60
        while True:
            try:
                Client("127.0.0.1", self.port, self.key, timeout_s=HUNG_S).close()
                return
            except ConnectionLost:
                if self.process.poll() is not None:
                    said = pathlib.Path(self.log_path).read_text(encoding="utf-8", errors="replace")
                    raise Wrong(f"the server ended with {self.process.returncode}:\n{said[-4000:]}") from None
                if time.monotonic() > end:
                    raise
            time.sleep(0.02)

    def connect(self):
        return Client("127.0.0.1", self.port, self.key, timeout_s=HUNG_S)

    def stop(self, in_order=True):
        """In order: all drives are closed. With one that is offline, or fails at the end, they are not."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self.process = None
        if code != (0 if in_order else 1):
            raise Wrong(f"the server stopped with {code}, in order: {in_order}")
        self.wait_for_drives()

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        self.wait_for_drives()

    def wait_for_drives(self):
        for device in self.drives:
            if os.path.exists(device):
                wait_until_given_back(device)

    def log(self):
        try:
            with open(self.log_path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def mark(self):
        """A place in the log, for said() and wait_for()."""
        return len(self.log())

    def said(self, what, since=0):
        return what in self.log()[since:]

    def wait_for(self, what, since=0, seconds=30):
        end = time.monotonic() + seconds
        while not self.said(what, since):
            if self.process.poll() is not None:
                raise Wrong(f'the server ended before it said "{what}"')
            if time.monotonic() > end:
                raise Wrong(f'the server did not say "{what}" within {seconds} s')
            time.sleep(0.02)


MASK64 = (1 << 64) - 1


def mix(x):
    x ^= x >> 30
    x = x * 0xBF58476D1CE4E5B9 & MASK64
    x ^= x >> 27
    x = x * 0x94D049BB133111EB & MASK64
    return x ^ x >> 31


def home_of(key, drives):
    """The drive, of `drives` that all take part, on which the block lies: rendezvous hashing."""
    tail = int.from_bytes(key_id(b"", key)[8:], "little")
    return max(range(drives), key=lambda index: mix(tail ^ mix(index + 0x9E3779B97F4A7C15)))


class Model:
    def __init__(self, chance):
        self.chance = chance
        self.last = {}  # key -> the value acknowledged last, None after a delete
        self.pending = {}  # key -> what may have been stored or, None, deleted since
        self.serial = 0

    def value(self, key, size):
        """A value unlike any other, which says in its first bytes what it is."""
        self.serial += 1
        head = b"%s #%d " % (key, self.serial)
        return (head + self.chance.randbytes(max(0, size - len(head))))[: max(size, len(head))]

    def put(self, client, key, size):
        """The status the put was answered with."""
        value = self.value(key, size)
        self.pending.setdefault(key, []).append(value)
        try:
            client.put(key, value)
        except StatusError as answer:
            if answer.status not in REFUSALS:
                raise Wrong(f"a put of {key} was answered with {answer.status.name}") from answer
            return answer.status
        self.last[key], self.pending[key] = value, []
        return Status.Ok

    def delete(self, client, key):
        self.pending.setdefault(key, []).append(None)
        try:
            client.delete(key)
        except StatusError as answer:
            if answer.status not in REFUSALS:
                raise Wrong(f"a delete of {key} was answered with {answer.status.name}") from answer
            return answer.status
        self.last[key], self.pending[key] = None, []
        return Status.Ok

    def judge(self, key, got, may_miss):
        """Whether `got` is a miss; Wrong if it is what the key cannot have."""
        last, pending = self.last.get(key), self.pending.get(key, [])
        if got is None:
            if not (may_miss or last is None or None in pending):
                raise Wrong(f"{key} is gone")
            return True
        if got in pending:
            # It took effect: what was before can come back no more than anything else that is old.
            self.last[key], self.pending[key] = got, pending[pending.index(got) + 1 :]
        elif got != last:
            wanted = "nothing" if last is None else last[:40]
            raise Wrong(f"{key} is {got[:40]}, and should be {wanted} or one of {len(pending)} unanswered")
        return False

    def check(self, client, may_miss=lambda key: False, may_refuse=lambda key: False):
        """Gets every key. How many came, were missed, and were refused."""
        came = missed = refused = 0
        for key in sorted(set(self.last) | set(self.pending)):
            try:
                got = client.get(key)
            except StatusError as answer:
                if answer.status not in REFUSALS or not may_refuse(key):
                    raise Wrong(f"a get of {key} was answered with {answer.status.name}") from answer
                refused += 1
                continue
            if self.judge(key, got.data if got is not None else None, may_miss(key)):
                missed += 1
            else:
                came += 1
        return came, missed, refused
