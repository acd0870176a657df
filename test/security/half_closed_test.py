"""A client that asks and closes its side at once still gets whole answers, and does the server no harm.

half_closed_test.py MEMKV    MEMKV_TEST_SEED repeats a run's choices
"""

import contextlib
import os
import random
import socket
import sys

import live_server
from live_server import page

SEED = int(os.environ.get("MEMKV_TEST_SEED", random.randrange(1 << 32)))
ROUNDS = 60
SIZES = (1, 60_000, 1 << 20, (1 << 20) + 1, 3_000_000, 9_000_000)


def expect(condition, what, server):
    if not condition:
        sys.exit(f"half_closed_test: {what} (MEMKV_TEST_SEED={SEED})\n{server.log()}")


def ask_and_close(server, values, chance):
    """Several gets in one go, then the end of what is sent; reads everything, or leaves."""
    wanted = chance.choices(sorted(values), k=chance.choice([1, 1, 2, 5]))
    with server.client() as client:
        asked = [(client.submit_get(page.GetItem(key)), key) for key in wanted]
        client.socket.shutdown(socket.SHUT_WR)
        if chance.random() < 0.2:
            return
        for number, key in asked:
            got = client.finish_get(number, page.GetItem(key))
            expect(got is not None and got.data == values[key], f"{key} came whole", server)
        with contextlib.suppress(ConnectionResetError):
            expect(client.socket.recv(1) == b"", "nothing follows the answers", server)


def put_and_close(server, values, chance):
    """A put whose answer nobody can doubt: the peer reads on after it has closed its side."""
    key = b"last words"
    value = chance.randbytes(chance.choice(SIZES))
    with server.client() as client:
        number = client.submit_put(key, value)
        client.socket.shutdown(socket.SHUT_WR)
        client.finish_put(number)
    values[key] = value


def main():
    print(f"half_closed_test: MEMKV_TEST_SEED={SEED}", flush=True)
    chance = random.Random(SEED)
    for mode in ("memory", "file"):
        with live_server.Server(
            os.path.abspath(sys.argv[1]), mode=mode, drive_mib=128, pool_mib=32
        ) as server:
            values = {b"value-%d" % size: chance.randbytes(size) for size in SIZES}
            with server.client() as client:
                for key, value in values.items():
                    client.put(key, value)
            for _ in range(ROUNDS):
                try:
                    ask_and_close(server, values, chance)
                    if chance.random() < 0.2:
                        put_and_close(server, values, chance)
                except page.ConnectionLost as problem:
                    expect(False, f"an answer was cut off: {problem}", server)
                expect(server.running, "the server lives", server)
            expect(server.stop() == 0, "the server ends in order", server)
    print("half_closed_test: passed")


if __name__ == "__main__":
    main()
