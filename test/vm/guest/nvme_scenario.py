"""The life of a store on raw NVMe drives, through the program as an operator uses it.

nvme_scenario.py MEMKV DRIVES SECTOR

Setup, start on the configuration that setup printed, load, restart, kill, restart; the offline tools;
deletes that give space back to the host; a drive that is reset while the others keep what they have.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

import drives as drive_checks
import nvme
import server as servers

MIB = 1 << 20
BLOCKS = 40
SIZES = (1, 5_000, 65_536, 65_537, 300_000)
LARGE_VALUES = 2  # of each load
LARGE_VALUE = 9 * MIB // 2  # two extents: striped where there is more than one drive
TRIM_S = 60.0


def expect(condition, what, detail=""):
    if not condition:
        sys.exit(f"nvme_scenario: {what}\n{detail}")


class Store:
    """The program, its drives, and what should be in it."""

    def __init__(self, program: str, drives: list[str], seed: int) -> None:
        self.program = program
        self.drives = drives
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="nvme-scenario-", dir="/run"))
        self.configuration = ""
        self.server: servers.Server | None = None
        self.content: dict[bytes, tuple[int, int]] = {}  # key: seed and size of its value
        self._chance = random.Random(seed)

    def memkv(self, *words: str, code: int = 0) -> subprocess.CompletedProcess:
        """One command, which must end with that code and, when it fails, say why."""
        done = subprocess.run(
            [self.program, *words], capture_output=True, text=True, timeout=300, check=False
        )
        what = f"memkv {' '.join(words)} ended with {done.returncode} instead of {code}"
        expect(done.returncode == code, what, done.stdout + done.stderr)
        expect(code == 0 or done.stderr.strip(), f"memkv {' '.join(words)} does not say why it failed")
        return done

    def setup(self) -> None:
        """Prepares the drives; what it prints is the configuration, unchanged."""
        done = self.memkv("setup", "--drives", *self.drives)
        for drive in self.drives:
            expect(drive in done.stderr, f"setup does not mention {drive}", done.stderr)
        self.configuration = done.stdout
        self.server = servers.Server(self.program, self.configuration, self.directory)

    def shrink_pool(self) -> None:
        """From the next start on: a GiB takes seconds in here, and once shows that it can be had."""
        text, count = re.subn(r"(?m)^(\s*max_size: ).*$", r"\g<1>64 MiB", self.configuration, count=1)
        expect(count == 1, "setup printed no memory.max_size", self.configuration)
        self.server = servers.Server(self.program, text, self.directory)

    def setup_again(self) -> None:
        """Refused, unless it is asked to leave everything as it is."""
        done = self.memkv("setup", "--drives", *self.drives, code=1)
        expect(self.drives[0] in done.stderr, "setup does not name the first drive in use", done.stderr)
        expect(done.stdout == "", "setup printed a configuration though it failed", done.stdout)
        self.memkv("setup", "--idempotent", "--drives", *self.drives)

    @staticmethod
    def value(seed: int, size: int) -> bytes:
        """The bytes put under a key."""
        return random.Random(seed).randbytes(size)

    def load(self, count: int) -> None:
        """Puts blocks, the first of them large, some over others."""
        with self.server.client() as client:
            for number in range(count):
                key = b"block-%d" % self._chance.randrange(2 * BLOCKS)
                size = LARGE_VALUE if number < LARGE_VALUES else self._chance.choice(SIZES)
                made = self._chance.getrandbits(32), size
                client.put(key, self.value(*made))
                self.content[key] = made

    def empty(self) -> None:
        """Deletes everything."""
        with self.server.client() as client:
            for key in self.content:
                expect(client.delete(key), f"{key} was not there to be deleted")
        self.content.clear()

    def compare(self, misses_allowed: bool = False) -> int:
        """Every block, byte for byte; returns how many are there."""
        found = 0
        with self.server.client() as client:
            for key, made in self.content.items():
                got = client.get(key)
                if got is None:
                    expect(misses_allowed, f"{key} is lost", self.server.log())
                    continue
                expect(got.data == self.value(*made), f"{key} has other bytes", self.server.log())
                found += 1
        return found


def restarts(store: Store) -> None:
    store.server.start()
    store.load(BLOCKS)
    print(f"loaded {store.compare()} blocks")
    store.server.stop()
    store.shrink_pool()
    store.server.start()
    print(f"{store.compare()} blocks after a restart")
    store.load(BLOCKS // 2)
    store.server.kill()
    store.server.start()
    print(f"{store.compare()} blocks after kill -9")


def a_running_servers_drive_is_refused(store: Store) -> None:
    for words in (["verify"], ["fsck", "--repair"], ["reset"]):
        done = store.memkv("drive", *words, store.drives[0], code=1)
        expect("in use" in done.stderr, f"drive {words[0]} failed for another reason", done.stderr)
    done = store.memkv("setup", "--force", "--drives", *store.drives, code=1)
    expect("in use" in done.stderr, "setup --force failed for another reason", done.stderr)
    print("the drives of a running server are refused")


def tools(store: Store) -> None:
    store.server.stop()
    for drive in store.drives:
        store.memkv("drive", "verify", drive)
        json.loads(store.memkv("drive", "verify", "--quick", "--json", drive).stdout)
        store.memkv("drive", "fsck", drive)
        json.loads(store.memkv("drive", "health", "--json", drive).stdout)
    print("verify, fsck and health find nothing")


def deletes_give_space_back(store: Store) -> None:
    taken = sum(nvme.taken_on_host(number) for number in range(len(store.drives)))
    stored = sum(size for _, size in store.content.values())
    store.empty()
    deadline = time.monotonic() + TRIM_S
    while True:
        left = sum(nvme.taken_on_host(number) for number in range(len(store.drives)))
        if taken - left >= stored * 9 // 10:
            break
        what = f"of {stored} bytes deleted, {taken - left} came back"
        expect(time.monotonic() < deadline, what, store.server.log())
        time.sleep(0.2)
    print(f"deleted {stored} bytes: on the host {taken} bytes before, {left} after")


def one_drive_is_reset(store: Store) -> None:
    store.load(BLOCKS)
    store.server.stop()
    store.memkv("drive", "reset", store.drives[0])
    store.memkv("drive", "verify", store.drives[0])
    store.server.start()
    found = store.compare(misses_allowed=True)
    if len(store.drives) > 1:
        expect(0 < found < len(store.content), f"{found} of {len(store.content)} blocks after the reset")
    else:
        expect(found == 0, f"{found} blocks on a drive that was reset")
    print(f"{found} of {len(store.content)} blocks after the reset of one of {len(store.drives)} drives")
    store.load(BLOCKS // 2)
    store.server.stop()
    for drive in store.drives:
        store.memkv("drive", "verify", drive)


def main():
    program, count, sector = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    seed = int(os.environ.get("MEMKV_TEST_SEED") or time.time_ns() & 0xFFFFFFFF)
    print(f"seed {seed} (set MEMKV_TEST_SEED to repeat it)")
    drive_checks.check(count, sector)
    store = Store(program, nvme.drives(), seed)
    store.setup()
    store.setup_again()
    restarts(store)
    a_running_servers_drive_is_refused(store)
    tools(store)
    store.server.start()
    deletes_give_space_back(store)
    one_drive_is_reset(store)
    print("nvme_scenario: passed")


if __name__ == "__main__":
    main()
