"""The pool of a server on raw drives: long values pass through a small one, and a popular block is read once.

raw_pool_test.py MEMKV

Needs root and loop devices; else it exits with 77.
"""

import os
import random
import sys
import tempfile
import threading
import urllib.request

from loop_drives import Loops
from raw_server import RawServer, Wrong

MEMKV = os.path.abspath(sys.argv[1])
SKIPPED = 77
SEED = int(os.environ.get("MEMKV_TEST_SEED", random.randrange(1 << 32)))
IMAGE_BYTES = 160 << 20
POOL = "max_size: 24 MiB, block_size: 1 MiB"
LONG_BYTES = 60_000_000
POPULAR_BYTES = 3_000_000
READERS = 12


def expect(condition, what):
    if not condition:
        raise Wrong(what)


def read_bytes(server):
    """What the drives were asked for since the start."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port + 1}/v1/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("memkv_drive_read_bytes_total"))


def long_values_pass(server, chance):
    """More than twice the pool, there and back, from two clients at one time."""
    values = [chance.randbytes(LONG_BYTES) for _ in range(2)]
    wrong = []

    def one(number):
        with server.connect() as client:
            client.put(b"long-%d" % number, values[number])
            got = client.get(b"long-%d" % number)
            if got is None or got.data != values[number]:
                wrong.append(number)

    together([lambda number=number: one(number) for number in range(2)])
    expect(not wrong, f"long values {wrong} came back otherwise than they were put")


def together(work):
    threads = [threading.Thread(target=each) for each in work]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


def a_popular_block_is_read_once(server, chance):
    value = chance.randbytes(POPULAR_BYTES)
    with server.connect() as client:
        client.put(b"popular", value)
        client.get(b"long-0")  # whatever the pool still held is gone
        before = read_bytes(server)
        clients = [server.connect() for _ in range(READERS)]
        got = [None] * READERS

        def read(number):
            got[number] = clients[number].get(b"popular").data

        together([lambda number=number: read(number) for number in range(READERS)])
        once = read_bytes(server) - before
        expect(got == [value] * READERS, "all have the same bytes")
        # A drive that is asked again by those who come when it has answered is asked for what is not kept.
        expect(once >= POPULAR_BYTES, f"{once} bytes were read")
        expect(once < 3 * POPULAR_BYTES, f"{READERS} readers at one time had {once} bytes read")
        before = read_bytes(server)
        for _ in range(20):
            expect(client.get(b"popular").data == value, "it is what it was")
        again = read_bytes(server) - before
        expect(again < POPULAR_BYTES, f"twenty more gets had {again} bytes read")
        print(f"{READERS} readers: {once:.0f} bytes read; twenty more gets: {again:.0f}")
        client.put(b"popular", value[::-1])
        expect(client.get(b"popular").data == value[::-1], "what was replaced is not given out")
        client.delete(b"popular")
        expect(client.get(b"popular") is None, "nor what was deleted")
        for each in clients:
            each.close()


def main():
    if os.geteuid() != 0:
        print("raw_pool_test: skipped, needs root for loop devices")
        return SKIPPED
    print(f"raw_pool_test: MEMKV_TEST_SEED={SEED}", flush=True)
    chance = random.Random(SEED)
    with tempfile.TemporaryDirectory() as folder:
        loops = Loops(folder, IMAGE_BYTES)
        try:
            drives = [loops.make(4096) for _ in range(2)]
        except OSError as problem:
            print(f"raw_pool_test: skipped, loop devices are not to be had here: {problem}")
            loops.free_all()
            return SKIPPED
        server = None
        try:
            server = RawServer(MEMKV, folder, drives)
            with open(server.config_path, encoding="ascii") as file:
                text = file.read()
            with open(server.config_path, "w", encoding="ascii") as file:
                file.write(text.replace("max_size: 32 MiB", POOL))
            server.start()
            long_values_pass(server, chance)
            a_popular_block_is_read_once(server, chance)
            server.stop()
        except Wrong as problem:
            print(f"raw_pool_test: {problem} (MEMKV_TEST_SEED={SEED})\n{server.log() if server else ''}")
            return 1
        finally:
            if server is not None:
                server.kill()
            loops.free_all()
    print("raw_pool_test: passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
