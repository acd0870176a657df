"""What a server on a raw drive does with blocks that are damaged or cannot be read, and what it says of them.

raw_damage_test.py MEMKV

Needs root and loop devices; else it exits with 77.
"""

import mmap
import os
import sys
import tempfile
import time
import urllib.request

from loop_drives import Loops, set_size_limit
from raw_server import RawServer, Status, StatusError, Wrong

MEMKV = os.path.abspath(sys.argv[1])
SKIPPED = 77
IMAGE_BYTES = 160 << 20
VALUE_BYTES = 300_000
WARNING = "damaged blocks were found and dropped"


def expect(condition, what):
    if not condition:
        raise Wrong(what)


def metric(server, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port + 1}/v1/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith((name + " ", name + "{")))


def counted(server, blocks, what):
    expect(metric(server, "memkv_corrupt_blocks_total") == blocks, f"memkv_corrupt_blocks_total of {what}")
    expect(metric(server, "memkv_drive_corrupt_blocks_total") == blocks, f"the drive's own count of {what}")


def place(image, value):
    with open(image, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(value[:64])
    expect(at >= 0, "finding a value on the drive")
    return at


def decay(image, at):
    with open(image, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0x20]))


def warnings(server):
    return [line for line in server.log().splitlines() if WARNING in line]


def told(server, drive, blocks):
    """How many blocks the warnings of this start tell of: the first at once, the others by the end."""
    lines = warnings(server)
    expect(sum(int(line.split("blocks=")[1].split()[0]) for line in lines) == blocks, f"{blocks} in {lines}")
    for line in lines:
        expect(" WARN memkv::drive:" in line and f"media={drive}" in line, f"the drive in: {line}")
        expect("memkv drive verify" in line, f"what to do in: {line}")
        expect("secret" not in line, f"nothing of a key in: {line}")


def damaged_blocks_are_counted_and_told(server, drive, image):
    values = {b"secret-%d" % number: os.urandom(VALUE_BYTES) for number in range(4)}
    server.start()
    with server.connect() as client:
        for key, value in values.items():
            client.put(key, value)
    server.stop()
    for number in range(3):
        decay(image, place(image, values[b"secret-%d" % number]) + 100_000)
    open(server.log_path, "w", encoding="ascii").close()
    server.start()
    with server.connect() as client:
        expect(client.get(b"secret-0") is None, "a damaged block is a miss")
        server.wait_for(WARNING)
        told(server, drive, 1)
        expect(client.get(b"secret-1") is None, "a damaged block is a miss")
        expect(client.lookup(b"secret-2") is None, "a damaged block is a miss also for a lookup")
        expect(client.get(b"secret-3").data == values[b"secret-3"], "a sound block beside them")
    counted(server, 3, "what was damaged")
    time.sleep(0.5)
    expect(len(warnings(server)) == 1, "one line a minute")
    server.stop()
    told(server, drive, 3)


def unreadable_blocks_are_counted_and_told(server, drive, image):
    value = os.urandom(VALUE_BYTES)
    server.start()
    with server.connect() as client:
        client.put(b"secret-far", value)
    server.stop()
    open(server.log_path, "w", encoding="ascii").close()
    server.start()
    with server.connect() as client:
        set_size_limit(drive, (place(image, value) + 65_536) // 4096 * 4096)
        try:
            try:
                client.get(b"secret-far")
                raise Wrong("a block came that could not be read")
            except StatusError as answer:
                expect(answer.status == Status.Unavailable, f"{answer.status} for what cannot be read")
            counted(server, 1, "what cannot be read")
            server.wait_for(WARNING)
        finally:
            set_size_limit(drive, 0)
        end = time.monotonic() + 30
        while client.exists(b"secret-far") is not None:
            expect(time.monotonic() < end, "the block is a miss once that is written down")
            time.sleep(0.02)
    told(server, drive, 1)
    server.stop()
    told(server, drive, 1)


def main():
    if os.geteuid() != 0:
        print("raw_damage_test: skipped, needs root for loop devices")
        return SKIPPED
    with tempfile.TemporaryDirectory() as folder:
        loops = Loops(folder, IMAGE_BYTES)
        try:
            drive = loops.make(4096)
        except OSError as problem:
            print(f"raw_damage_test: skipped, loop devices are not to be had here: {problem}")
            return SKIPPED
        server = None
        try:
            server = RawServer(MEMKV, folder, [drive])
            damaged_blocks_are_counted_and_told(server, drive, loops.image(drive))
            unreadable_blocks_are_counted_and_told(server, drive, loops.image(drive))
        except Wrong as problem:
            print(f"raw_damage_test: {problem}\n{server.log() if server else ''}")
            return 1
        finally:
            if server is not None:
                server.kill()
            loops.free_all()
    print("raw_damage_test: passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
