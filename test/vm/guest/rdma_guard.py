"""Memory of calls over RDMA that ended in the middle, while the server dies, stands still and is cut off.

rdma_guard.py MEMKV RDMA_GUARD

RDMA_GUARD is test/vm/rdma_guard.cpp, which says what it looks at. Its connections lead through this script,
which cuts them; bytes by RDMA go their own way. The server keeps its values in files, and has them when it
comes back.

MEMKV_TEST_SECONDS: for how long (60). MEMKV_TEST_SEED repeats the choices, not their moments.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import rdma_link
import server as servers
from development_license import environment as licensed

SECONDS = int(os.environ.get("MEMKV_TEST_SECONDS", "60"))
SEED = int(os.environ.get("MEMKV_TEST_SEED", random.randrange(1 << 32)))
VIA = 9910
READY_S = 120.0
WAIT_S = 60.0
# What happens, in any order, again and again; `quiet` leaves it to the deadlines alone.
TROUBLE = ("halt",) * 5 + ("cut",) * 4 + ("quiet",) * 2 + ("kill",)
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() throws away what is on its way


class Passage:
    """Takes connections and hands them on to the server, until they are cut. Threads of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", VIA), backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> int:
        """Ends all connections, and says how many there were."""
        with self._lock:
            ended = list(self._open)
        for each in ended:
            try:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it ended by itself
        return len(ended) // 2

    def _accept(self) -> None:
        while True:
            inner, _ = self._listener.accept()
            try:
                outer = socket.create_connection(("127.0.0.1", servers.PORT), timeout=5)
            except OSError:
                inner.close()
                continue
            for end in (inner, outer):
                end.settimeout(None)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {inner, outer}
            threading.Thread(target=self._carry_both, args=(inner, outer), daemon=True).start()

    def _carry_both(self, inner: socket.socket, outer: socket.socket) -> None:
        other = threading.Thread(target=self._carry, args=(outer, inner), daemon=True)
        other.start()
        self._carry(inner, outer)
        other.join()
        with self._lock:
            self._open -= {inner, outer}
        inner.close()
        outer.close()

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def sessions() -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{servers.PORT + 1}/v1/status", timeout=20) as answer:
        return json.load(answer).get("rdma", {}).get("sessions", -1)


def disturb(server: servers.Server, passage: Passage, guard: subprocess.Popen) -> dict[str, int]:
    """Until the program ended; how often what happened."""
    chance = random.Random(SEED)
    happened = dict.fromkeys(TROUBLE, 0)
    happened["connections cut"] = 0
    while guard.poll() is None:
        for what in chance.sample(TROUBLE, len(TROUBLE)):
            time.sleep(chance.uniform(0.2, 1.5))
            if guard.poll() is not None:
                break
            if what == "halt":
                server.halt()
                time.sleep(chance.uniform(0.02, 0.8))
                server.go_on()
            elif what == "cut":
                happened["connections cut"] += passage.cut()
            elif what == "kill":
                server.kill()
                server.start()
            happened[what] += 1
    return happened


def expect(condition: bool, what: str, said: str) -> None:
    if not condition:
        sys.exit(f"rdma_guard: {what}\n{said}")


def main(memkv: str, program: str) -> None:
    print(f"rdma_guard: {SECONDS} s, MEMKV_TEST_SEED={SEED}", flush=True)
    rdma_link.make()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="rdma-guard-", dir="/run"))
    server = servers.Server(
        memkv,
        f"network: {{ address: '127.0.0.1:{servers.PORT}' }}\n"
        f"rdma: {{ device: {rdma_link.NAME}, mtu: 4096 }}\n"
        "memory: { max_size: 128 MiB, block_size: 2 MiB }\n"
        "storage:\n  mode: file\n  drives:\n"
        f"    - {{ media: {directory / 'drive'}, max_size: 384 MiB }}\n",
        directory,
    )
    server.start()
    passage = Passage()
    log = directory / "guard.log"
    with open(log, "wb") as errors:
        guard = subprocess.Popen(
            [program, f"127.0.0.1:{VIA}", f"127.0.0.1:{servers.PORT}", rdma_link.NAME, str(SECONDS),
             str(SEED)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=licensed(memkv, keep=True, MEMKV_AUTH_KEY=servers.KEY_TEXT),
        )  # fmt: skip
    ready = select.select([guard.stdout], [], [], READY_S)[0] and guard.stdout.readline() == "ready\n"
    if not ready:
        guard.kill()
        server.fail(f"rdma_guard: the program is not ready: {log.read_text()}")
    happened = disturb(server, passage, guard)
    said = guard.stdout.read()
    if guard.returncode != 0:
        server.fail(f"rdma_guard: ended with {guard.returncode}: {log.read_text()}{said}")
    print(f"{happened}\n{said}", end="", flush=True)
    found = json.loads(said)
    gets, puts = found["gets"], found["puts"]
    # What follows says that the run meant something.
    expect(all(happened[what] for what in TROUBLE), "not all of the trouble came about", f"{happened}")
    expect(gets["midway_deadline"] > 0, "no deadline struck while a transfer was under way", said)
    expect(puts["connections_closed_by_deadline"] > 0, "no put was given up by its deadline", said)
    for name, kind in found.items():
        expect(kind["codes"].get("ok", 0) > 0, f"none of the {name} succeeded", said)
        expect(kind["rdma_bytes"] > 0, f"none of the {name} moved by RDMA", said)
    expect(puts["old_values"] > 0 and puts["new_values"] > 0, "the puts all ended in one way", said)
    begin = time.monotonic()
    while sessions() != 0:
        if time.monotonic() - begin > WAIT_S:
            server.fail(f"rdma_guard: {sessions()} sessions are left")
        time.sleep(0.1)
    server.stop()
    print("rdma_guard: passed")


if __name__ == "__main__":
    main(*sys.argv[1:3])
