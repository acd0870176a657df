"""Ten thousand idle clients: what they cost in memory, and what an honest client notices of them.

    idle_connections_test.py MEMKV
    idle_connections_test.py --hold PORT COUNT ADDRESS     (a process of clients; started by the first form)

MEMKV_IDLE_CONNECTIONS is another number of clients. The bound on memory is the promise; the one on the
latency is loose, because other work on the machine must not fail the test: the figure is printed.
"""

from __future__ import annotations

import os
import resource
import socket
import struct
import subprocess
import sys
import time
import unittest

import live_server
from live_server import KEY, KIB, MIB, SECOND_NS, Server, page
from memkv_page_client import Header, Opcode

PROCESSES = 4
GETS = 3000
SPREAD_MAX = 10.0


def hold(port: int, count: int, address: str) -> None:
    """Opens and authenticates so many connections, says "held", and keeps them until its input ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + 64)), hard))
    kept = []
    for at in range(0, count, 100):
        opened = []
        for _ in range(min(100, count - at)):
            nonce = os.urandom(page.NONCE_BYTES)
            one = live_server.connect_from(address, port, 60)
            header = Header(Opcode.Hello, 1, variable=page.encode_hello(nonce))
            one.sendall(page.seal(KEY, header.encode(), time.time_ns()))
            opened.append((one, nonce))
        for one, nonce in opened:
            answer = receive(one, 224 + page.TRAILER_BYTES)
            server = page.ServerHello.decode(answer[128:224])
            tag = page.derive_connection_tag(KEY, server.version, nonce, server.server_nonce)
            ping = Header(Opcode.Ping, 2, connection_tag=tag)
            one.sendall(page.seal(KEY, ping.encode(), time.time_ns()))
        for one, _ in opened:
            status = receive(one, 128 + page.TRAILER_BYTES)[7]
            if status != 0:
                raise SystemExit(f"a Ping was answered with status {status}")
            kept.append(one)
    print("held", flush=True)
    sys.stdin.read()
    for one in kept:
        one.settimeout(0)
        try:
            if not one.recv(1):
                raise SystemExit("an idle connection was closed")
        except BlockingIOError:
            pass


def receive(one: socket.socket, size: int) -> bytes:
    """Exactly so many bytes."""
    data = b""
    while len(data) < size:
        more = one.recv(size - len(data))
        if not more:
            raise SystemExit("the server closed a connection that it should serve")
        data += more
    return data


if len(sys.argv) == 5 and sys.argv[1] == "--hold":
    hold(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    sys.exit(0)

MEMKV = live_server.program()


def honest_latencies(server: Server) -> list[float]:
    """Sorted times of gets of 4 KiB on one connection, one after the other, in seconds."""
    times = []
    with server.client() as client:
        value = os.urandom(4 * KIB)
        client.put(b"honest", value)
        for _ in range(GETS):
            begin = time.perf_counter()
            found = client.get(b"honest")
            times.append(time.perf_counter() - begin)
            if found.data != value:
                raise AssertionError("a wrong value")
    return sorted(times)


class idle_connections(unittest.TestCase):
    def test_they_cost_little_memory_and_little_time(self):
        wanted = int(os.environ.get("MEMKV_IDLE_CONNECTIONS") or 10_000)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        # The server may raise its limit only up to the hard one where it is not privileged.
        count = min(wanted, hard - 300) if hard != resource.RLIM_INFINITY else wanted
        if count < wanted:
            print(f"the limit on open files leaves room for {count} connections only")
        network = f"max_connections: {count + 200}, max_connections_per_address: {count + 200}"
        with Server(MEMKV, network=network) as server:
            before = honest_latencies(server)
            memory_before = server.memory()
            share = -(-count // PROCESSES)
            holders = []
            begin = time.monotonic()
            try:
                for index in range(PROCESSES):
                    holders.append(subprocess.Popen(
                        [sys.executable, __file__, "--hold", str(server.port),
                         str(min(share, count - share * index)), f"127.0.1.{index + 1}"],
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
                for each in holders:
                    self.assertEqual(each.stdout.readline(), "held\n", server.log())
                opened_s = time.monotonic() - begin
                self.assertGreaterEqual(server.descriptors(), count)
                memory = server.memory()
                during = honest_latencies(server)
                memory = max(memory, server.memory())
                for each in holders:
                    each.stdin.close()
                for each in holders:
                    self.assertEqual(each.wait(30), 0, "an idle client was not served well")
            finally:
                for each in holders:
                    if each.poll() is None:
                        each.kill()
                    each.wait()
                    each.stdout.close()
            p99 = [times[len(times) * 99 // 100] for times in (before, during)]
            print(f"{count} idle connections, opened in {opened_s:.1f} s: memory {memory // KIB} KiB, "
                  f"{(memory - memory_before) / count / KIB:.2f} KiB a connection; p99 of a 4 KiB get "
                  f"{p99[0] * 1e6:.0f} us before, {p99[1] * 1e6:.0f} us with them: "
                  f"{p99[1] / p99[0]:.2f} times", flush=True)
            # The drive is hardly used: not even its size is allowed for.
            self.assertLess(memory, server.pool_bytes + 64 * MIB + count * 16 * KIB)
            self.assertLess(p99[1], max(SPREAD_MAX * p99[0], 0.005))
            live_server.wait_until(lambda: server.descriptors() < 60, 20, "the connections are gone")
            with server.client() as client:
                client.ping()
            self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main()
