"""One of three drives fails while it is in use: it loses every request, or says it wrote and did not.

drive_fault.py MEMKV    needs three NVMe drives and the modules dm_mod, dm_flakey

The other drives go on serving, nothing wrong is ever returned, and the drive is back by itself when the fault
is over. What is put from then on is there, also after a kill. A start beside a drive that answers nothing
waits for it, since nobody else may know what that drive knows; a signal ends the waiting. A drive that says
it wrote and did not is another matter: all that is asked then is that a key has one of the values that were
put under it, or none.
"""

from __future__ import annotations

import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import device_mapper
import nvme
import server as servers

MIB = 1 << 20
DRIVE_BYTES = 256 * MIB
KEYS = 48
SIZES = (1_000, 20_000, 100_000, 400_000)
FAULT_S = 4.0
FLAPS = 100
RETURN_S = 90.0
FAULTY = "faulty"
WAITS = "the start waits for drives that do not answer"
WAITS_S = 120.0  # such a line comes every 30 s
HEALTH_WINDOW_S = 11.0  # as in actors/drive.cpp, and a moment
OFFLINE = "drive is offline"  # of the server's log
BACK = "drive is back"


def expect(condition, what, detail=""):
    if not condition:
        sys.exit(f"drive_fault: {what}\n{detail}")


class Load:
    """Every value ever put under each key, and what the last answer said."""

    def __init__(self, server: servers.Server, seed: int) -> None:
        self.server = server
        self._chance = random.Random(seed)
        self.values: list[list[bytes]] = [[] for _ in range(KEYS)]
        self.certain = [False] * KEYS  # the last put was acknowledged, and no fault since

    def put(self, client, key: int) -> bool:
        """Puts a new value; false when the server said that it could not."""
        self.values[key].append(self._chance.randbytes(self._chance.choice(SIZES)))
        self.certain[key] = False
        try:
            client.put(b"key-%d" % key, self.values[key][-1])
        except servers.page.StatusError:
            return False
        self.certain[key] = True
        return True

    def get(self, client, key: int, doubtful: bool) -> bool | None:
        """Whether the key has a value; None when the server could not say. Other bytes end the test."""
        try:
            got = client.get(b"key-%d" % key)
        except servers.page.StatusError as error:
            expect(doubtful, f"key {key}: {error}", self.server.log())
            return None
        if got is None:
            expect(doubtful or not self.certain[key], f"key {key} is lost", self.server.log())
            return False
        allowed = self.values[key][-1:] if self.certain[key] and not doubtful else self.values[key]
        expect(got.data in allowed, f"key {key} has other bytes", self.server.log())
        return True

    def all(self, doubtful: bool) -> tuple[int, int]:
        """Looks at every key; returns how many have a value and how many have none."""
        with self.server.client() as client:
            answers = [self.get(client, key, doubtful) for key in range(KEYS)]
        return sum(each is True for each in answers), sum(each is False for each in answers)

    def during(self, seconds: float) -> tuple[int, int]:
        """Puts and gets while the fault lasts; returns puts that were acknowledged and puts that were not."""
        acknowledged = refused = 0
        deadline = time.monotonic() + seconds
        with self.server.client() as client:
            while time.monotonic() < deadline:
                if self.put(client, self._chance.randrange(KEYS)):
                    acknowledged += 1
                else:
                    refused += 1
                self.get(client, self._chance.randrange(KEYS), doubtful=True)
        return acknowledged, refused

    def until_all_are_back(self) -> float:
        """Waits for the drives; returns the seconds that took. What others took in for one that is away is
        forgotten when it returns, so nothing that was put before then is certain."""
        begin = time.monotonic()
        while True:
            text = self.server.text()
            if text.rfind(OFFLINE) <= text.rfind(BACK):
                return time.monotonic() - begin
            what = f"a drive is still away {RETURN_S:g} s after the fault"
            expect(time.monotonic() - begin < RETURN_S, what, self.server.log())
            time.sleep(0.1)

    def until_every_put_works(self) -> float:
        """Puts all keys again until none is refused; returns the seconds that took."""
        begin = time.monotonic()
        left = list(range(KEYS))
        with self.server.client() as client:
            while left:
                left = [key for key in left if not self.put(client, key)]
                what = f"{len(left)} keys still cannot be put {RETURN_S:g} s after the fault"
                expect(time.monotonic() - begin < RETURN_S, what, self.server.log())
                if left:
                    time.sleep(0.2)
        return time.monotonic() - begin


def start_beside_a_drive_that_hangs(server: servers.Server, load: Load, drive: str) -> None:
    """It waits, says so, and goes on when the drive answers. A stop is not tried: the kernel keeps a thread
    that reads from a suspended device, and with it the process, until the device answers."""
    device_mapper.suspend(FAULTY)
    try:
        mark = len(server.text())
        server.begin()
        begin = time.monotonic()
        while not any(WAITS in line and drive in line for line in server.text()[mark:].splitlines()):
            expect(server.running(), "the server ended beside a drive that hangs", server.log())
            expect(time.monotonic() - begin < WAITS_S, "nobody says that the start waits", server.log())
            time.sleep(0.1)
        waited = time.monotonic() - begin
    finally:
        device_mapper.resume(FAULTY)
    server.must_serve()
    print(f"a drive hangs: the start waited {waited:.1f} s, then went on")
    expect(load.all(doubtful=False) == (KEYS, 0), "a block of the drive that hung is missing", server.log())


def configuration(drives: list[str]) -> str:
    """Of a server that gives a drive up only after more failures than happen here."""
    lines = [f'network: {{ address: "127.0.0.1:{servers.PORT}" }}']
    lines += ["memory: { max_size: 64 MiB, block_size: 1 MiB }"]
    lines += ["storage:", "  mode: direct", f"  flap_threshold: {FLAPS}", "  drives:"]
    lines += [f"    - {{ media: {drive} }}" for drive in drives]
    return "\n".join([*lines, ""])


def main():
    program = sys.argv[1]
    seed = int(os.environ.get("MEMKV_TEST_SEED") or time.time_ns() & 0xFFFFFFFF)
    print(f"seed {seed} (set MEMKV_TEST_SEED to repeat it)")
    paths = nvme.drives()
    expect(len(paths) >= 3, f"three drives are needed, there are {paths}")
    names = ["sound0", "sound1", FAULTY]
    drives = [
        device_mapper.create(name, DRIVE_BYTES, "linear", f"{path} 0")
        for name, path in zip(names, paths, strict=False)
    ]
    words = [program, "setup", "--drives", *drives]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    expect(done.returncode == 0, "setup failed", done.stderr)
    server = servers.Server(program, configuration(drives), pathlib.Path(tempfile.mkdtemp(dir="/run")))
    server.start()
    load = Load(server, seed)
    load.until_every_put_works()
    expect(load.all(doubtful=False) == (KEYS, 0), "a block is missing before any fault")

    faults = [
        ("every request fails", "error", ""),
        # Up for 0 s, then down for an hour.
        ("writes fail", "flakey", f"{paths[2]} 0 0 3600 1 error_writes"),
        ("reads fail", "flakey", f"{paths[2]} 0 0 3600 1 error_reads"),
    ]
    for what, target, parameters in faults:
        device_mapper.exchange(FAULTY, DRIVE_BYTES, target, parameters)
        acknowledged, refused = load.during(FAULT_S)
        expect(acknowledged > 0, f"{what}: the other drives did not serve", server.log())
        device_mapper.exchange(FAULTY, DRIVE_BYTES, "linear", f"{paths[2]} 0")
        if what == "reads fail":
            time.sleep(HEALTH_WINDOW_S)  # at the end of which a drive may be taken for one that fails
        back = load.until_all_are_back()
        found, missing = load.all(doubtful=True)
        load.until_every_put_works()
        expect(server.running(), f"{what}: the server ended", server.log())
        print(
            f"{what}: {acknowledged} puts acknowledged, {refused} refused, all drives back after "
            f"{back:.1f} s, then {found} blocks and {missing} misses"
        )
        what += ": a block put afterwards is missing"
        expect(load.all(doubtful=False) == (KEYS, 0), what, server.log())
    server.kill()
    server.start()
    expect(load.all(doubtful=False) == (KEYS, 0), "a block is missing after a kill", server.log())
    server.stop()
    start_beside_a_drive_that_hangs(server, load, drives[2])
    server.stop()
    for drive in drives:
        words = [program, "drive", "verify", drive]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        expect(done.returncode == 0, f"verify {drive}", done.stdout + done.stderr)

    server.start()
    device_mapper.exchange(FAULTY, DRIVE_BYTES, "flakey", f"{paths[2]} 0 0 3600 1 drop_writes")
    acknowledged, refused = load.during(FAULT_S)
    server.kill()
    device_mapper.exchange(FAULTY, DRIVE_BYTES, "linear", f"{paths[2]} 0")
    server.start()
    found, missing = load.all(doubtful=True)
    print(f"writes are dropped: {acknowledged} puts acknowledged, {refused} refused, then {found} blocks")
    load.until_every_put_works()
    load.until_all_are_back()
    load.until_every_put_works()
    expect(load.all(doubtful=False) == (KEYS, 0), "a block put afterwards is missing", server.log())
    server.stop()
    print("drive_fault: passed")


if __name__ == "__main__":
    main()
