"""memkv setup and memkv drive on loop devices, through the program, with servers on what setup printed.

setup_test.py MEMKV    needs root and loop devices; says so and exits with 77 where there are none

Everything runs in namespaces of its own, so that a server can have the address and half of the memory that
setup wrote down: the memory is what a file says that is mounted over /proc/meminfo.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import pty
import random
import re
import select
import signal
import subprocess
import sys
import tempfile
import time

from loop_drives import PAGE, Loops, allocated_bytes, wait_until_given_back

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))

from development_license import environment as licensed  # noqa: E402

MEMKV = os.path.abspath(sys.argv[1])
SKIPPED = 77
SEED = int(os.environ.get("MEMKV_TEST_SEED", random.randrange(1 << 32)))
KEY = os.urandom(32).hex()
IMAGE_BYTES = 192 << 20
ENVIRONMENT = licensed(MEMKV)


def timed(what, *arguments):
    begin = time.monotonic()
    what(*arguments)
    numbers = [each for each in arguments if isinstance(each, int)]
    print(f"{what.__name__} {numbers}: {time.monotonic() - begin:.1f} s")


def expect(condition, what, detail=""):
    if not condition:
        sys.exit(f"setup_test: {what} (MEMKV_TEST_SEED={SEED})\n{detail}")


def memkv(*words, stdin=b"", stdout=subprocess.PIPE):
    return subprocess.run(
        [MEMKV, *words],
        input=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=120,
        check=False,
        env={**ENVIRONMENT, "MEMKV_AUTH_KEY": KEY, "MEMKV_SERVERS": "127.0.0.1:9900"},
    )


def succeeds(*words):
    done = memkv(*words)
    expect(done.returncode == 0, f"memkv {' '.join(words)} failed", done.stdout + done.stderr)
    return done.stdout.decode()


def refused(*words, says, output=False):
    """The command ends with 1, one sentence, and (unless it reports) nothing on standard output."""
    done = memkv(*words)
    what = f"memkv {' '.join(words)}"
    expect(done.returncode == 1, f"{what} was not refused", done.stdout + done.stderr)
    lines = [line for line in done.stderr.decode().splitlines() if line.startswith("memkv: ")]
    expect(len(lines) == 1 and says in lines[0], f"{what} did not say \"{says}\"", done.stderr)
    expect(output or done.stdout == b"", f"{what} printed although it failed", done.stdout)
    return done


def digest(device):
    """Of what is on the device."""
    hashed = hashlib.sha256()
    with open(device, "rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            hashed.update(chunk)
    return hashed.hexdigest()


def blank(device):
    with open(device, "rb", buffering=0) as file:
        return not any(file.read(PAGE))


class Server:
    def __init__(self, folder, config):
        self.config, self.log_path = os.path.join(folder, "config.yaml"), os.path.join(folder, "server.log")
        self.process = None
        with open(self.config, "w", encoding="ascii") as file:
            file.write(config)

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [MEMKV, "start", "--config", self.config, "--log-file", "none"],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**ENVIRONMENT, "MEMKV_AUTH_KEY": KEY},
            )
        line = self.process.stdout.readline()
        expect(line.startswith(b"memkv: serving on 0.0.0.0:9900"), "the server does not serve", self.log())

    def end(self, number, drives=()):
        self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        self.process.stdout.close()
        for device in drives:
            wait_until_given_back(device)
        expect(number == signal.SIGKILL or code == 0, "the server did not stop in order", self.log())
        self.process = None

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()


@contextlib.contextmanager
def serving(folder, config):
    server = Server(folder, config)
    try:
        server.start()
        yield server
        if server.process is not None:
            server.end(signal.SIGTERM)
    finally:
        if server.process is not None:
            server.process.kill()
            server.process.wait()


def load(chance, count):
    """Stores blocks of many sizes; what they hold."""
    blocks = {}
    for number in range(count):
        size = chance.choice([0, 1, 4096, 65536, 100_000, 1_000_000, 4 << 20, 9_000_000])
        value = chance.randbytes(size)
        name = f"key-{number}"
        done = memkv("client", "put", name, stdin=value)
        expect(done.returncode == 0, f"put of {size} bytes failed", done.stderr)
        blocks[name] = value
    return blocks


def compare(blocks):
    """Every block is there, byte by byte."""
    for name, value in blocks.items():
        got = memkv("client", "get", name)
        expect(got.returncode == 0 and got.stdout == value, f"{name} is not what was stored", got.stderr)


def never_wrong(blocks):
    """Every block is what it was or a miss; how many misses."""
    misses = 0
    for name, value in blocks.items():
        got = memkv("client", "get", name)
        expect(got.returncode == 1 or got.stdout == value, f"{name} came back wrong", got.stderr)
        misses += got.returncode
    return misses


def verify(device, *flags):
    return json.loads(succeeds("drive", "verify", device, "--json", *flags))


def health(device):
    return json.loads(succeeds("drive", "health", device, "--json"))


def crc32c(content):
    sum_ = 0xFFFFFFFF
    for byte in content:
        sum_ ^= byte
        for _ in range(8):
            sum_ = sum_ >> 1 ^ (0x82F63B78 if sum_ & 1 else 0)
    return sum_ ^ 0xFFFFFFFF


def edit_superblocks(device, offset, content):
    """Changes both copies and makes their checksums right: see docs/formats/superblock.md."""
    with open(device, "r+b", buffering=0) as file:
        for place in (0, file.seek(0, os.SEEK_END) - PAGE):
            file.seek(place)
            page = bytearray(file.read(PAGE))
            page[offset : offset + len(content)] = content
            page[12:16] = bytes(4)
            page[12:16] = crc32c(page).to_bytes(4, "little")
            file.seek(place)
            file.write(page)
        os.fsync(file.fileno())


def overwrite(device, offset, content):
    with open(device, "r+b", buffering=0) as file:
        file.seek(offset)
        file.write(content)
        os.fsync(file.fileno())


def small(config):
    """Pinning a gibibyte for each drive is what takes most of a server's start here."""
    return config.replace("max_size: 1 GiB", "max_size: 64 MiB")


def a_set_lives_through_everything(folder, loops, chance, sector_bytes, count):
    drives = [loops.make(sector_bytes) for _ in range(count)]
    config = succeeds("setup", "--drives", *drives)
    for device in drives:
        expect(f"- media: {device}\n" in config, "the configuration lacks a drive", config)
    expect("\nrdma:\n  device: mlx5_0\n" in config, "the configuration names no RDMA device", config)
    expect("  max_size: 1 GiB\n" in config, "half of the memory, and at least 1 GiB", config)
    if count > 1:
        config = small(config)
    with serving(folder, config) as server:
        blocks = load(chance, min(8 * count, 24))
        compare(blocks)
        refused("drive", "verify", drives[0], says="is in use")
        refused("drive", "reset", drives[-1], says="is in use")
        refused("drive", "reset", loops.image(drives[-1]), says=f"is in use by {drives[-1]}")
        refused("setup", "--force", "--drives", *drives, says="is in use")
        twin = loops.attach(loops.image(drives[-1]), sector_bytes)
        says = f"{twin} is a loop device on the same file as {drives[-1]}, which is in use"
        for words in (("drive", "reset"), ("drive", "verify"), ("setup", "--force", "--drives")):
            refused(*words, twin, says=says)
        loops.detach(twin)
        server.end(signal.SIGTERM)
    for device in drives:
        expect(health(device)["state"] == "clean", "a stop in order leaves a clean drive")
    with serving(folder, config) as server:
        compare(blocks)
        more = load(chance, min(8 * count, 24))
        server.end(signal.SIGKILL, drives)
    blocks.update(more)
    for device in drives:
        before = digest(device)
        report = verify(device)
        expect(report["clean"] and report["state"] == "unclean", "a killed server costs nothing", report)
        expect(report["accounted_bytes"] == report["capacity_bytes"], "every byte has a region", report)
        verify(device, "--quick")
        succeeds("drive", "fsck", device)
        health(device)
        expect(digest(device) == before, "looking at a drive changes nothing")
    with serving(folder, config) as server:
        compare(blocks)
        server.end(signal.SIGKILL, drives)
    succeeds("drive", "fsck", "--repair", drives[0])
    report = verify(drives[0])
    expect(report["clean"] and report["state"] == "clean", "a repair leaves a clean drive", report)
    with serving(folder, config):
        compare(blocks)
    found = [health(device) for device in drives]
    places = [each["set"]["device_id"] for each in found]
    expect(places == list(range(count)), "drives know their places", found)
    expect({each["set"]["num_devices"] for each in found} == {count}, "drives know their number", found)
    expect(len({each["set"]["set_id"] for each in found}) == 1, "drives are one set", found)
    expect(sum(each["fill"]["used_bytes"] for each in found) > 0, "drives know their fill", found)
    for device in drives:
        loops.free(device)


def setup_takes_nothing_that_is_somebodys(folder, loops):
    first, second = loops.make(4096), loops.make(512)
    link = os.path.join(folder, "link")
    os.symlink(second, link)
    refused("setup", "--drives", first, second, link, says=f"{link} is the same drive as {second}")
    refused("setup", "--drives", first, os.path.join(folder, "none"), says="does not exist")
    refused("setup", "--drives", first, loops.image(second), says="is not a block device")
    expect(blank(first), "nothing is written before everything was looked at")

    twin = loops.attach(loops.image(first), 4096)
    says = f"{twin} and {first} are loop devices on the same bytes of one file"
    refused("setup", "--force", "--drives", first, twin, says=says)
    expect(blank(first), "nothing is written to a file that two devices lie on")
    loops.detach(twin)

    subprocess.run(["mkfs.ext4", "-q", second], check=True)
    before = digest(second)
    refused("setup", "--drives", first, second, says=f"{second} holds an ext2, ext3 or ext4 file system")
    point = os.path.join(folder, "point")
    os.mkdir(point)
    subprocess.run(["mount", "-o", "ro,noload", second, point], check=True)
    try:
        for flags in ([], ["--force"]):
            refused("setup", "--drives", first, second, *flags, says=f"{second} is mounted on {point}")
        refused("drive", "reset", second, says="is mounted on")
    finally:
        subprocess.run(["umount", point], check=True)
    expect(digest(second) == before, "a file system is left alone")
    refused("drive", "reset", second, says="was never memkv's")
    succeeds("setup", "--force", "--drives", first, second)
    expect(verify(second)["clean"], "a forced drive is sound")
    with open("/dev/full", "wb") as full:
        done = memkv("setup", "--force", "--drives", first, second, stdout=full)
    expect(done.returncode == 1, "a configuration that cannot be written is a failure", done.stderr)
    loops.free(first)
    loops.free(second)


def partitions_go_only_by_force(loops):
    device = loops.make(512, "--partscan")
    subprocess.run(["addpart", device, "1", "2048", "4096"], check=True)
    part = os.path.basename(device) + "p1"
    refused("setup", "--drives", device, says=f"{device} has partitions ({part})")
    says = f"/dev/{part} is a partition of {device}"
    refused("setup", "--force", "--drives", device, f"/dev/{part}", says=says)
    expect(blank(device), "nothing was written")
    succeeds("setup", "--force", "--drives", device)
    expect(not os.path.exists(f"/sys/class/block/{part}"), "the partition is gone for the kernel, too")
    expect(verify(device)["clean"], "a formerly partitioned drive is sound")
    loops.free(device)


def idempotent_keeps_a_set_and_nothing_else(loops):
    drives = [loops.make(4096) for _ in range(3)]
    config = succeeds("setup", "--idempotent", "--shard-size", "1024", "--drives", *drives)
    for line in ("block_size: 1 MiB\n", "shard_size: 1 MiB\n"):
        expect(line in config, "sizes follow the flag", config)
    before = [digest(device) for device in drives]
    refused("setup", "--drives", *drives, says=f"{drives[0]} holds memkv data (drive 0 of 3")
    again = succeeds("setup", "--idempotent", "--drives", *drives)
    bare = succeeds("setup", "--idempotent", "--rdma", "none", "--drives", *drives)
    expect("rdma" not in bare, "the file has a section rdma", bare)
    expect(bare.endswith(again[again.index("storage:") :]), "the file is another one", bare)
    expect(again == config, "what is there is what is printed", again)
    expect(succeeds("setup", "--idempotent", "--force", "--drives", *drives) == config, "force keeps it, too")
    refused("setup", "--idempotent", "--drives", *reversed(drives), says=f"{drives[2]} is drive 2 of 3")
    refused("setup", "--idempotent", "--drives", *drives[:2], says=f"{drives[0]} is drive 0 of 3")
    expect([digest(device) for device in drives] == before, "nothing of this writes")
    fresh = loops.make(4096)
    mixed = [drives[0], drives[1], fresh]
    refused("setup", "--idempotent", "--drives", *mixed, says=f"but {fresh} is blank")
    expect(digest(drives[0]) == before[0], "a mixed state is left alone")
    changed = succeeds("setup", "--idempotent", "--force", "--drives", *mixed)
    expect("block_size: 4 MiB\n" in changed and fresh in changed, "force formats a mixed state", changed)
    expect(health(fresh)["set"]["set_id"] == health(drives[0])["set"]["set_id"], "into one new set")
    refused("setup", "--idempotent", "--drives", *drives, says=f"{drives[2]} is drive 2 of 3 of set")
    for device in [*drives, fresh]:
        loops.free(device)


def blacklist(device):
    """The failure registry of docs/formats/superblock.md after nine failures."""
    failures = bytes([1, 1, 4, 0]) + (9).to_bytes(4, "little") + (1_738_800_000 * 10**9).to_bytes(8, "little")
    failures += (1_738_810_000 * 10**9).to_bytes(8, "little") + b"S-17".ljust(128, b"\0")
    edit_superblocks(device, 256, failures)


def setup_unlocks_no_failing_drive(loops):
    drives = [loops.make(4096) for _ in range(2)]
    succeeds("setup", "--drives", *drives)
    blacklist(drives[1])
    for flag in ("--idempotent", "--force"):
        done = memkv("setup", flag, "--drives", *drives)
        says = f"{drives[1]} stays blacklisted after 9 failures: run memkv drive reset {drives[1]}"
        expect(done.returncode == 0 and says.encode() in done.stderr, "setup warns of it", done.stderr)
        expect(health(drives[1])["failures"]["failure_count"] == 9, "its record stays")
        expect(verify(drives[1])["warnings"] == 1, "verify warns of it, too")
    succeeds("drive", "reset", drives[1])
    expect(not health(drives[1])["failures"]["blacklisted"], "a reset unlocks it")
    for device in drives:
        loops.free(device)


def a_drive_can_be_reset(folder, loops, chance):
    drives = [loops.make(sector_bytes) for sector_bytes in (512, 4096)]
    config = small(succeeds("setup", "--drives", *drives))
    image = loops.image(drives[1])
    empty = allocated_bytes(image)
    with serving(folder, config):
        blocks = load(chance, 24)
    expect(allocated_bytes(image) > empty + (2 << 20), "blocks take space in the image")
    before = health(drives[1])
    # As a server leaves a drive that failed too often, with a page 0 that cannot be trusted any more.
    blacklist(drives[1])
    overwrite(drives[1], 100, b"rot")
    found = health(drives[1])
    expect(found["superblocks"] == {"primary": "damaged", "mirror": "ok"}, "both copies are told of", found)
    expect(
        found["failures"]
        == {
            "device_id": 1,
            "failure_count": 9,
            "first_failed_at": 1_738_800_000,
            "last_failed_at": 1_738_810_000,
            "blacklisted": True,
        },
        "failures are told of",
        found,
    )
    for flags in ([], ["--secure"]):
        said = succeeds("drive", "reset", drives[1], *flags)
        expect("drive 1 of 2" in said, "the drive knows its place", said)
        after = health(drives[1])
        expect(after["set"] == before["set"], "a reset drive keeps its place", after)
        expect(after["fill"]["blocks"] == 0 and after["fill"]["used_bytes"] == 0, "it is empty", after)
        expect(after["failures"]["failure_count"] == 0, "its record is clear", after)
        expect(after["failures"]["blacklisted"] is False, "it is active", after)
        expect(after["superblocks"] == {"primary": "ok", "mirror": "ok"}, "both copies are whole", after)
        expect(verify(drives[1])["clean"], "it is sound")
        if not flags:
            expect(allocated_bytes(image) <= empty + (1 << 20), "its space was discarded")
    data = after["capacity_bytes"] - (16 << 20)
    with open(drives[1], "rb") as file:
        file.seek(16 << 20)
        expect(not any(file.read(data - PAGE)), "nothing is left after --secure")
    with serving(folder, config):
        misses = never_wrong(blocks)
        expect(0 < misses < len(blocks), "the blocks of one drive are misses, those of the other are there")
        compare({f"key-{number}": value for number, value in enumerate(load(chance, 4).values())})
    for device in drives:
        loops.free(device)


def damage_is_found_named_and_repaired(folder, loops, chance):
    device = loops.make(4096)
    config = small(succeeds("setup", "--drives", device))
    mark = chance.randbytes(64)
    with serving(folder, config):
        blocks = load(chance, 12)
        blocks["marked"] = mark * 3000
        expect(memkv("client", "put", "marked", stdin=blocks["marked"]).returncode == 0, "put")
    with open(device, "rb") as file:
        place = file.read().find(mark * 3000)
    expect(place > 0, "the value is found on the drive")
    overwrite(device, place + 100_000, b"\x00rot\x00")
    expect(verify(device, "--quick")["clean"], "a quick look does not read data")
    pointer = f"run memkv drive fsck --repair {device}"
    before = digest(device)
    for command in ("verify", "fsck"):
        done = refused("drive", command, device, "--json", says=pointer, output=True)
        report = json.loads(done.stdout)
        expect(report["errors"] == 1 and not report["clean"], "one error", report)
        expect(report["findings"][0]["kind"] == "data_damaged", "and which", report)
        expect(abs(report["findings"][0]["offset"] - place) < len(blocks["marked"]), "and where", report)
        done = refused("drive", command, device, says=pointer, output=True)
        told = b"data_damaged: the block is dropped" in done.stdout
        expect(told == (command == "fsck"), "a dry run says what would be done", done.stdout)
    expect(digest(device) == before, "a dry run changes nothing")
    report = json.loads(succeeds("drive", "fsck", "--repair", device, "--json"))
    expect(report["clean"] and report["repair"]["done"], "the repair ends well", report)
    expect(report["repair"]["blocks_dropped"] == 1, "it drops what is damaged", report)
    expect(report["repair"]["blocks_kept"] >= len(blocks) - 1, "and nothing else", report)
    expect(verify(device)["clean"], "the drive is clean")
    after = digest(device)
    report = json.loads(succeeds("drive", "fsck", "--repair", device, "--json"))
    expect(not report["repair"]["changed"], "a second repair finds nothing", report)
    expect(digest(device) == after, "a second repair changes nothing")
    with serving(folder, config):
        expect(memkv("client", "exists", "marked").returncode == 1, "the damaged block is a miss")
        del blocks["marked"]
        compare(blocks)

    overwrite(device, 0, bytes(PAGE))
    refused("drive", "verify", device, says=pointer, output=True)
    succeeds("drive", "fsck", "-q", "--repair", device)
    expect(verify(device)["clean"], "the first superblock is back")
    overwrite(device, 0, b"memkv-sb" + bytes(PAGE - 8))
    overwrite(device, IMAGE_BYTES - PAGE, b"memkv-sb" + bytes(PAGE - 8))
    for command in ("verify", "fsck", "reset", "health"):
        refused("drive", command, device, says="has lost both superblocks")
    loops.free(device)


def what_takes_long_shows_how_far_it_is(loops):
    """On a terminal only. A drive of terabytes has a tree region that takes a while to sweep."""
    device = loops.make(4096, size=15 << 40)
    succeeds("setup", "--drives", device)
    main_end, other_end = pty.openpty()
    words = [MEMKV, "drive", "verify", device]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=other_end)
    os.close(other_end)
    try:
        shown, end = b"", time.monotonic() + 60
        amount = rb"checking \[[#.]{20}\] \d+\.\d of \d+\.\d [MG]iB  \d+ %"
        pattern = amount + rb"  \d+\.\d MiB/s  (\d+ h )?(\d+ min ?)?(\d+ s )?left"
        while not re.search(pattern, shown) and time.monotonic() < end:
            if select.select([main_end], [], [], 1)[0]:
                try:
                    shown += os.read(main_end, 4096)
                except OSError:
                    break  # the other end was closed
        expect(re.search(pattern, shown), "progress is shown with rate and time left", shown)
    finally:
        process.kill()
        process.wait()
        os.close(main_end)
    wait_until_given_back(device)
    loops.free(device)


def a_drive_of_file_mode_is_a_drive_too(folder):
    path = os.path.join(folder, "drive.dat")
    config = (
        "memory: { max_size: 64 MiB }\n"
        f"storage: {{ mode: file, drives: [{{ media: {path}, max_size: 64 MiB }}] }}\n"
    )
    with serving(folder, config):
        blocks = load(random.Random(1), 4)
        refused("drive", "health", path, says="is in use")
        refused("drive", "reset", path, says="is in use")
    report = verify(path)
    expect(report["clean"] and report["model"] == "regular file", "a file is verified", report)
    size, taken = os.path.getsize(path), allocated_bytes(path)
    succeeds("drive", "reset", path)
    expect(os.path.getsize(path) == size and allocated_bytes(path) == taken, "a file keeps what it reserved")
    with serving(folder, config):
        expect(never_wrong(blocks) == len(blocks), "a reset file is empty")


def inside():
    print(f"setup_test: MEMKV_TEST_SEED={SEED}")
    chance = random.Random(SEED)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        meminfo = os.path.join(folder, "meminfo")
        with open(meminfo, "w", encoding="ascii") as file:
            file.write("MemTotal: 4194304 kB\nMemAvailable: 2097152 kB\n")
        subprocess.run(["mount", "--bind", meminfo, "/proc/meminfo"], check=True)
        loops = Loops(folder, IMAGE_BYTES)
        try:
            try:
                loops.free(loops.make(4096))
            except OSError as problem:
                print(f"setup_test: skipped, loop devices are not to be had here: {problem}")
                return SKIPPED
            for sector_bytes, count in ((512, 1), (4096, 3), (4096, 8)):
                timed(a_set_lives_through_everything, folder, loops, chance, sector_bytes, count)
            timed(setup_takes_nothing_that_is_somebodys, folder, loops)
            timed(partitions_go_only_by_force, loops)
            timed(idempotent_keeps_a_set_and_nothing_else, loops)
            timed(setup_unlocks_no_failing_drive, loops)
            timed(a_drive_can_be_reset, folder, loops, chance)
            timed(damage_is_found_named_and_repaired, folder, loops, chance)
            timed(a_drive_of_file_mode_is_a_drive_too, folder)
            timed(what_takes_long_shows_how_far_it_is, loops)
        finally:
            loops.free_all()
            subprocess.run(["umount", "/proc/meminfo"], check=False)
    print("setup_test: passed")
    return 0


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that loop devices are given back
    if len(sys.argv) > 2:
        return inside()
    if os.geteuid() != 0:
        print("setup_test: skipped, needs root for loop devices")
        return SKIPPED
    namespaces = ["unshare", "--mount", "--net"]
    if subprocess.run([*namespaces, "true"], capture_output=True, check=False).returncode != 0:
        print("setup_test: skipped, namespaces are not to be had here")
        return SKIPPED
    os.execvp("unshare", [*namespaces, sys.executable, os.path.abspath(__file__), MEMKV, "inside"])


if __name__ == "__main__":
    sys.exit(main())
