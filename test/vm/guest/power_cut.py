"""Power cuts under load, with the kernel's own block layer and drives that have a volatile cache.

power_cut.py MEMKV file|direct DRIVES    needs 2 * DRIVES NVMe drives and the modules dm_mod, dm_log_writes

A load runs with `storage.sync: always` on drives whose writes, flushes and discards are recorded; every
answer is marked in the record when it has arrived. Then the record is replayed up to many places onto emptied
drives, the server started on each, and every key compared: what was acknowledged before the cut is there,
what was under way is there whole or not at all, and nothing else is.

With one drive, a cut may be at any entry of the record, and what had not been flushed there may be lost in
any combination. With several, cuts are at places where all drives were held still for a moment, so that their
states belong together.

MEMKV_TEST_SEED repeats a run's chances (not its timing), MEMKV_TEST_SECONDS is the length of the load (6),
MEMKV_TEST_CUTS the number of cuts (8).
"""

from __future__ import annotations

import os
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time
import uuid

import device_mapper
import nvme
import server as servers
import write_log

MIB = 1 << 20
DRIVE_BYTES = 256 * MIB
FILE_BYTES = 192 * MIB
LOAD_S = float(os.environ.get("MEMKV_TEST_SECONDS") or 6)
CUTS = int(os.environ.get("MEMKV_TEST_CUTS") or 8)
WRITERS = 6
KEYS_A_WRITER = 6
VALUE_SIZES = (1, 900, 5_000, 40_000, 70_000, 150_000, 150_000, 300_000)
LARGE_VALUE = 9 * MIB // 2  # of two extents, so striped where there is more than one drive
FREEZE_S = 0.05
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def expect(condition, what):
    if not condition:
        sys.exit(f"power_cut: {what}")


class Load:
    """What is put and deleted, and in which order: the model of every key is its list of operations."""

    def __init__(self, seed: int, drives: list[str]) -> None:
        self.seed = seed
        self._logs = drives
        self.operations: dict[int, list[int | None]] = {}
        self.errors: list[str] = []

    def value(self, key: int, number: int, size: int) -> bytes:
        """The bytes of a key's operation: no two are alike unless they are short."""
        return random.Random(f"{self.seed} {key} {number}").randbytes(size)

    def write(self, server: servers.Server, writer: int, part: int, over: threading.Event) -> None:
        """Works on this writer's own keys, one request at a time, until it is over."""
        chance = random.Random(f"{self.seed} writer {writer} {part}")
        try:
            with server.client() as client:
                while not over.is_set():
                    self._change(client, writer * KEYS_A_WRITER + chance.randrange(KEYS_A_WRITER), chance)
        except Exception as error:  # noqa: BLE001 - a thread's error is the test's
            self.errors.append(f"writer {writer}: {error}")

    def _change(self, client, key: int, chance: random.Random) -> None:
        done = self.operations.setdefault(key, [])
        if done and done[-1] is not None and chance.random() < 0.15:
            done.append(None)
            client.delete(b"key-%d" % key)
        else:
            size = LARGE_VALUE if chance.random() < 0.02 else chance.choice(VALUE_SIZES)
            done.append(size)
            client.put(b"key-%d" % key, self.value(key, len(done), size))
        # In the record of the first drive, from now on this operation must not be lost.
        device_mapper.message(self._logs[0], f"mark done:{key}:{len(done)}")

    def allowed(self, key: int, acknowledged: int) -> list[bytes | None]:
        """The values that a key may have when so many of its operations had been answered."""
        done = self.operations.get(key, [])
        values = []
        for number in (acknowledged, acknowledged + 1):
            if number == 0:
                values.append(None)
            elif number <= len(done):
                size = done[number - 1]
                values.append(None if size is None else self.value(key, number, size))
        return values


class Drives:
    """The drives of one phase: as they are, or with the recorder between."""

    def __init__(self, mode: str, paths: list[str], directory: pathlib.Path) -> None:
        self.mode = mode
        self.paths = paths
        self._points = [directory / f"mount{number}" for number in range(len(paths))]
        for point in self._points:
            point.mkdir(exist_ok=True)

    def make(self, program: str) -> None:
        """What has to be done once, before the first start."""
        if self.mode == "file":
            for path in self.paths:
                self._must("mkfs.ext4", "-q", "-F", path)
        else:
            self._must(program, "setup", "--drives", *self.paths)

    def open(self) -> None:
        """What a start of the machine does before that of the server."""
        if self.mode == "file":
            for path, point in zip(self.paths, self._points, strict=True):
                self._must("mount", "-t", "ext4", path, str(point))

    def close(self) -> None:
        """The opposite."""
        if self.mode == "file":
            for point in self._points:
                deadline = time.monotonic() + device_mapper.CLOSE_S
                words = ["umount", str(point)]
                while subprocess.run(words, capture_output=True, check=False).returncode != 0:
                    # The kernel closes what an io_uring holds some time after the death of its process.
                    expect(time.monotonic() < deadline, f"{point} is still in use")
                    time.sleep(0.05)

    def verify(self, program: str) -> None:
        """What a power cut leaves is no damage, and the offline check knows that."""
        if self.mode == "direct":
            for path in self.paths:
                self._must(program, "drive", "verify", path)

    def media(self) -> list[str]:
        """What the configuration names."""
        return [str(point / "drive") for point in self._points] if self.mode == "file" else self.paths

    def configuration(self) -> str:
        """Of a server on these drives: nothing is evicted, so nothing acknowledged may be missing."""
        size = f", max_size: {FILE_BYTES // MIB} MiB" if self.mode == "file" else ""
        lines = [f'network: {{ address: "127.0.0.1:{servers.PORT}" }}']
        lines += ["memory: { max_size: 64 MiB, block_size: 1 MiB }", "storage:"]
        lines += [f"  mode: {self.mode}", "  sync: always", "  eviction: { enabled: false }", "  drives:"]
        lines += [f"    - {{ media: {media}{size} }}" for media in self.media()]
        return "\n".join([*lines, ""])

    @staticmethod
    def _must(*words: str) -> None:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        expect(done.returncode == 0, f"{' '.join(words)} failed: {done.stdout}{done.stderr}")


def pretend_to_boot(directory: pathlib.Path) -> None:
    """The kernel's boot id is another one from here on, as it is after a power cut."""
    path = directory / "boot_id"
    first = not path.exists()
    path.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
    if first:
        subprocess.run(["mount", "--bind", str(path), BOOT_ID], check=True)


class Freezer(threading.Thread):
    """Holds all drives still for a moment, again and again, and marks that place in each record: what is
    behind a mark on one drive cannot be the cause of what is before it on another."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self._names = names
        self.over = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.over.wait(FREEZE_S):
            for name in self._names:
                device_mapper.suspend(name)
            for name in self._names:
                device_mapper.message(name, f"mark cut:{number}")
            for name in self._names:
                device_mapper.resume(name)
            number += 1


def record(program: str, mode: str, paths: list[str], logs: list[str], directory: pathlib.Path, load: Load):
    """Runs the load on recorded drives, with a kill and a recovery in its middle and an orderly stop at its
    end; afterwards `logs` hold the record."""
    names = [f"recorded{number}" for number in range(len(paths))]
    recorded = [
        device_mapper.create(name, DRIVE_BYTES, "log-writes", f"{path} {log}")
        for name, path, log in zip(names, paths, logs, strict=True)
    ]
    drives = Drives(mode, recorded, directory)
    drives.make(program)
    drives.open()
    server = servers.Server(program, drives.configuration(), directory)
    server.start()
    for name in names:
        device_mapper.message(name, "mark begin")
    freezer = Freezer(names if len(names) > 1 else [])
    freezer.start()
    # A missing flush is made up for by the next one, which comes at once when there are many writers.
    for part, count in enumerate((WRITERS, 1)):
        over = threading.Event()
        writers = [
            threading.Thread(target=load.write, args=(server, number, part, over))
            for number in range(count)
        ]
        for writer in writers:
            writer.start()
        over.wait(LOAD_S / 2)
        over.set()
        for writer in writers:
            writer.join()
        expect(not load.errors, f"the load failed: {load.errors}\n{server.log()}")
        if part == 0:
            server.kill()
            server.start()
    server.stop()
    freezer.over.set()
    freezer.join()
    drives.close()
    for name in names:
        device_mapper.remove(name)


def acknowledged_before(log: write_log.Log, position: int) -> dict[int, int]:
    """How many operations of each key had been answered."""
    answered: dict[int, int] = {}
    for entry in log.entries[:position]:
        if entry.mark.startswith("done:"):
            _, key, number = entry.mark.split(":")
            answered[int(key)] = int(number)
    return answered


def compare(server: servers.Server, load: Load, answered: dict[int, int]) -> int:
    """Every key against the model; returns how many have a value."""
    found = 0
    with server.client() as client:
        for key in range(WRITERS * KEYS_A_WRITER):
            value = client.get(b"key-%d" % key)
            data = None if value is None else value.data
            allowed = load.allowed(key, answered.get(key, 0))
            if data not in allowed:
                told = ["absent" if each is None else f"{len(each)} bytes" for each in allowed]
                what = "absent" if data is None else f"{len(data)} bytes, {data[:16].hex()}..."
                server.fail(f"power_cut: key {key} after {answered.get(key, 0)} answers: {what}, not {told}")
            found += data is not None
    return found


def places_of_cuts(logs: list[write_log.Log], count: int, chance: random.Random) -> list[list[int]]:
    """For each cut the index in each log. On a single drive a third of them are right behind a flush, a third
    right behind an answer, and the others where there is something to lose."""
    begins = [log.places("begin")[0] for log in logs]
    if len(logs) > 1:
        marks = [log.places("cut:") for log in logs]
        expect(len({len(each) for each in marks}) == 1, "the drives were not held equally often")
        chosen = sorted(chance.sample(range(len(marks[0])), min(count, len(marks[0]))))
        return [[each[number] for each in marks] for number in chosen]
    entries = logs[0].entries
    durable = write_log.FLUSH | write_log.FUA
    flushes = [at + 1 for at in range(begins[0], len(entries)) if entries[at].flags & durable]
    in_doubt, replay = [], write_log.Replay(logs[0])
    for at in range(begins[0], len(entries) + 1):
        replay.advance(at)
        in_doubt += [at] * replay.cached()
    answers = [at + 1 for at in logs[0].places("done:")]
    chosen = chance.choices(flushes, k=count // 3) + chance.choices(answers, k=count // 3)
    chosen += chance.choices(in_doubt or flushes, k=count - len(chosen))
    return [[at] for at in sorted(chosen)]


def main():
    program, mode, drive_count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    seed = int(os.environ.get("MEMKV_TEST_SEED") or time.time_ns() & 0xFFFFFFFF)
    print(f"seed {seed} (set MEMKV_TEST_SEED to repeat it)")
    chance = random.Random(f"{seed} cuts")
    all_drives = nvme.drives()
    expect(len(all_drives) >= 2 * drive_count, f"{2 * drive_count} drives are needed, there are {all_drives}")
    paths, log_paths = all_drives[:drive_count], all_drives[drive_count : 2 * drive_count]
    directory = pathlib.Path(tempfile.mkdtemp(prefix="power-cut-", dir="/run"))
    load = Load(seed, [f"recorded{number}" for number in range(drive_count)])
    record(program, mode, paths, log_paths, directory, load)
    logs = [write_log.Log(path) for path in log_paths]
    operations = sum(len(done) for done in load.operations.values())
    flushes = sum(bool(entry.flags & write_log.FLUSH) for log in logs for entry in log.entries)
    entries = sum(len(log.entries) for log in logs)
    print(f"recorded {operations} operations, {entries} entries, {flushes} flushes")
    expect(operations > 20, "the load did too little")

    replays = [write_log.Replay(log) for log in logs]
    # What was recorded is a part of the drive only, so is what it is replayed to.
    paths = [
        device_mapper.create(f"replayed{number}", DRIVE_BYTES, "linear", f"{path} 0")
        for number, path in enumerate(paths)
    ]
    drives = Drives(mode, paths, directory)
    for number, places in enumerate(places_of_cuts(logs, CUTS, chance)):
        in_doubt = written = 0
        for log, replay, path, place in zip(logs, replays, paths, places, strict=True):
            replay.advance(place)
            in_doubt += replay.cached()
            written += write_log.write_state(log, replay.cut(chance), path)
        answered = acknowledged_before(logs[0], places[0])
        pretend_to_boot(directory)
        drives.open()
        drives.verify(program)
        server = servers.Server(program, drives.configuration(), directory)
        begin = time.monotonic()
        server.start()
        started = time.monotonic() - begin
        found = compare(server, load, answered)
        if number % 4 == 0:
            # What recovery left must itself survive a crash, and an orderly stop be in order.
            server.kill()
            server.start()
            again = compare(server, load, answered)
            expect(again == found, f"{found} blocks after the cut, {again} after the next start")
            server.stop()
            drives.verify(program)
        else:
            server.kill()
        drives.close()
        print(
            f"cut at {places}: {sum(answered.values())} answers, {in_doubt} writes in doubt, "
            f"{written} bytes, {found} blocks, started in {started:.1f} s"
        )
    print("power_cut: passed")


if __name__ == "__main__":
    main()
