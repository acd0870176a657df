"""Clients that take and do not give: slow ones, silent ones, very many, and ones that never read (row F32).

    exhaustion_test.py MEMKV [TEST...]

The time limits are the page's; all of them run out at the same time, so the test takes little longer than the
longest.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import threading
import time
import unittest

import live_server
from live_server import KIB, MIB, Server, checks, page, wait_until
from memkv_page_client import ConnectionLost, GetItem, Opcode, PutItem, Status

MEMKV = live_server.program()
UNAUTHENTICATED_MAX = 1024
UNAUTHENTICATED_OF_ONE_ADDRESS_MAX = UNAUTHENTICATED_MAX // 4
# How much earlier or later than its limit a cut may come: the server looks every quarter of a second, and the
# machine is busy.
EARLY_S, LATE_S = 0.5, 40.0
ANSWER_S = 60.0


def raise_own_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < min(hard, 8192):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))


raise_own_descriptor_limit()


class attacker:
    """A connection that is expected to be cut between two times after `begin`."""

    def __init__(self, name, raw, limit_s, drip=None, every_s=0.25):
        self.name, self.raw, self.limit_s = name, raw, limit_s
        self._drip, self._every_s = drip, every_s
        self.begin = self._next = time.monotonic()
        self.ended_s = None

    def look(self):
        """Notices the end without reading what may have been sent before it; drips when it is time to."""
        if self.ended_s is not None:
            return
        now = time.monotonic()
        poll = select.poll()
        poll.register(self.raw.socket, select.POLLRDHUP)
        if any(events & (select.POLLRDHUP | select.POLLHUP | select.POLLERR) for _, events in poll.poll(0)):
            self.ended_s = now - self.begin
        elif self._drip is not None and now >= self._next:
            self._next = now + self._every_s
            with contextlib.suppress(OSError):
                self.raw.socket.send(next(self._drip))


def single_bytes(data):
    """The bytes of a frame one by one, the last one never."""
    for at in range(len(data) - 1):
        yield data[at : at + 1]
    while True:
        yield b""


def pieces_of(size):
    while True:
        yield bytes(size)


class time_limits(unittest.TestCase):
    def setUp(self):
        self.server = Server(MEMKV, drive_mib=256, network="idle_timeout: 12 s")
        self.addCleanup(self.server.close)
        self.server.start()
        self.attackers = []

    def add(self, name, limit_s, opened, drip=None, every_s=0.25):
        self.addCleanup(opened.socket.close)
        opened.socket.setblocking(False)
        self.attackers.append(attacker(name, opened, limit_s, drip, every_s))

    def test_who_is_slow_or_silent_or_never_reads_is_cut_in_time(self):
        with self.server.client() as client:
            client.put(b"large", bytes(32 * MIB))
            client.put(b"small", os.urandom(4 * KIB))
        for _ in range(30):
            self.add("silent after connecting", 5, self.server.raw())
            self.add("a Hello in single bytes", 5, (raw := self.server.raw()),
                     single_bytes(raw.seal(raw.hello_header(bytes(15) + b"\1"))))
            self.add("a Hello and no frame after it", 5, self.server.raw().hello())
            raw = self.server.raw().ready()
            self.add("a header in single bytes", 5, raw, single_bytes(raw.seal(raw.header(Opcode.Stat))))
            self.add("idle", 12, self.server.raw().ready())
        for opcode, key in ((Opcode.TcpPut, b"slow"), (0x55, b"skipped")):
            for _ in range(10):
                raw = self.server.raw().ready()
                raw.request(opcode, page.encode_key(key), payload_length=24 * MIB)
                # 20 KiB a second: the average falls below the limit once the first 5 s are over.
                self.add(f"a slow payload for opcode {opcode}", 5, raw, pieces_of(5 * KIB))
        for _ in range(10):
            raw = self.server.raw().ready()
            for _ in range(3):
                raw.request(Opcode.TcpGet, GetItem(b"large").encode())
            self.add("an answer that is never read", 30, raw)

        # Slower than all others, but above the limit: this one is honest.
        patient = self.server.raw().ready()
        self.addCleanup(patient.socket.close)
        value = os.urandom(1200 * KIB)
        header = patient.header(Opcode.TcpPut, page.encode_key(b"patient"), value)
        patient.send(patient.seal(header))
        sent, patient_begin = 0, time.monotonic()

        most, slowest = 0, 0.0
        with self.server.client() as honest:
            while any(each.ended_s is None for each in self.attackers):
                now = time.monotonic()
                self.assertLess(now - patient_begin, 30 + LATE_S + 10, self.open_ones())
                for each in self.attackers:
                    each.look()
                due = min(len(value), int((now - patient_begin) * 110 * KIB))
                if due > sent:
                    patient.send(value[sent:due])
                    sent = due
                begin = time.monotonic()
                self.assertEqual(len(honest.get(b"small").data), 4 * KIB)
                slowest = max(slowest, time.monotonic() - begin)
                most = max(most, self.server.memory())
                time.sleep(0.02)
        patient.answer(patient.last_id, Status.Ok)
        for each in self.attackers:
            with self.subTest(each.name):
                self.assertGreater(each.ended_s, each.limit_s - EARLY_S)
                self.assertLess(each.ended_s, each.limit_s + LATE_S)
        print(f"slow clients: memory at most {most // KIB} KiB, slowest answer to an honest client "
              f"{slowest * 1000:.1f} ms")
        self.assertLess(most, self.server.memory_allowed(len(self.attackers)))
        with self.server.client() as client:
            self.assertIsNone(client.get(b"slow"))
            self.assertEqual(client.get(b"patient").data, value)
        self.assertEqual(self.server.stop(), 0)

    def open_ones(self):
        return {each.name for each in self.attackers if each.ended_s is None}


class without_reading(unittest.TestCase):
    """Requests without end from clients that read no answer."""

    def setUp(self):
        self.server = Server(MEMKV, drive_mib=96)
        self.addCleanup(self.server.close)
        self.server.start()
        with self.server.client() as client:
            client.put(b"large", bytes(8 * MIB))
            client.put(b"small", b"small")

    def attack(self, count, frames):
        """Sends until nothing more is taken; returns the most memory and the most frames taken."""
        raws = [self.server.raw().ready() for _ in range(count)]
        taken = [0] * count

        def send(index):
            raw = raws[index]
            raw.socket.settimeout(2)
            with contextlib.suppress(OSError):
                for frame in frames(raw):
                    raw.socket.sendall(frame)
                    taken[index] += 1

        threads = [threading.Thread(target=send, args=(index,)) for index in range(count)]
        most = 0
        for each in threads:
            each.start()
        while any(each.is_alive() for each in threads):
            most = max(most, self.server.memory())
            with self.server.client() as honest:
                self.assertEqual(honest.get(b"small").data, b"small")
            time.sleep(0.05)
        for each in threads:
            each.join()
        for raw in raws:
            raw.socket.close()
        print(f"{self.id().rpartition('.')[2]}: {max(taken)} frames taken of one connection, "
              f"memory at most {most // KIB} KiB of {self.server.memory_allowed(count) // KIB} KiB")
        self.assertLess(most, self.server.memory_allowed(count))
        wait_until(lambda: self.server.descriptors() < 40, 40, "the connections are gone")
        return max(taken)

    def test_small_requests_stop_being_read_and_memory_stays_bounded(self):
        def pings(raw):
            while True:
                yield raw.seal(raw.header(Opcode.Ping))

        # Far more than fits the sockets' buffers would be taken by a server that goes on reading.
        self.assertLess(self.attack(40, pings), 100_000)

    def blocked(self, raw):
        """An answer that fills the sockets, so that everything behind it waits."""
        for _ in range(2):
            yield raw.seal(raw.header(Opcode.TcpGet, GetItem(b"large").encode()))

    def test_large_batches_stop_being_read_and_memory_stays_bounded(self):
        def batches(raw):
            yield from self.blocked(raw)
            items = page.encode_get_items([GetItem(b"%0200d" % index) for index in range(4096)])
            for _ in range(200):
                yield raw.seal(raw.header(Opcode.TcpBatchGet, items))

        self.assertLess(self.attack(16, batches), 100)

    def test_gets_stop_being_read_and_memory_stays_bounded(self):
        def gets(raw):
            yield from self.blocked(raw)
            while True:
                yield raw.seal(raw.header(Opcode.TcpGet, GetItem(b"large").encode()))

        self.assertLess(self.attack(40, gets), 100_000)

    def test_batches_are_served_again_after_the_attack(self):
        with self.server.client() as client:
            items = [PutItem(b"after-%d" % index, b"v") for index in range(4096)]
            self.assertEqual({status for status, _ in client.put_batch(items)}, {Status.Ok})
            found = client.get_batch([GetItem(item.key) for item in items])
            self.assertEqual({result.data for result in found}, {b"v"})


class headers(unittest.TestCase):
    def test_large_headers_that_keep_the_memory_of_all_from_each_other_end_in_time(self):
        server = Server(MEMKV, drive_mib=16, network="max_connections_per_address: 400")
        self.addCleanup(server.close)
        server.start()
        items = page.encode_get_items([GetItem(b"%0210d" % index) for index in range(4096)])
        self.assertLess(len(items), MIB - KIB)
        # Each has memory for half of its header and needs as much again; together they have all there is.
        raws = [server.raw().ready() for _ in range(150)]

        def send(raw):
            raw.socket.settimeout(2)
            with contextlib.suppress(OSError):
                raw.socket.sendall(raw.seal(raw.header(Opcode.TcpBatchGet, items))[:600_000])

        threads = [threading.Thread(target=send, args=(raw,)) for raw in raws]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        begin = time.monotonic()
        while True:
            try:
                with server.client() as client:
                    found = client.get_batch([GetItem(b"%0200d" % index) for index in range(4096)])
                self.assertEqual({result.status for result in found}, {Status.NotFound})
                break
            except ConnectionLost:
                # Its own header may have been the one that had to go.
                self.assertLess(time.monotonic() - begin, 5 + LATE_S)
        print(f"a large header beside {len(raws)} halves: {time.monotonic() - begin:.1f} s")
        self.assertLess(time.monotonic() - begin, 5 + LATE_S)
        wait_until(lambda: server.descriptors() < 40, 5 + LATE_S, "the halves are gone")
        for raw in raws:
            raw.socket.close()


class numbers(unittest.TestCase):
    """Too many connections, or too few descriptors."""

    def server(self, **options):
        server = Server(MEMKV, drive_mib=16, **options)
        self.addCleanup(server.close)
        server.start()
        return server

    def served(self, raw):
        """Whether the connection is served, and not closed at once."""
        try:
            raw.ready()
        except checks.CheckFailed:
            return False
        return True

    def test_connections_of_one_address_are_limited(self):
        server = self.server(network="max_connections_per_address: 20")
        opened = [server.raw() for _ in range(30)]
        served = [raw for raw in opened if self.served(raw)]
        self.assertEqual(len(served), 20)
        other = live_server.connect_from("127.0.0.2", server.port, ANSWER_S)
        with server.raw() as elsewhere:
            elsewhere.socket.close()
            elsewhere.socket = other
            elsewhere.socket.settimeout(10)
            self.assertTrue(self.served(elsewhere))
        for raw in opened:
            raw.socket.close()
        wait_until(lambda: server.descriptors() < 30, 10, "places are given back")
        with server.client() as client:
            client.ping()

    def test_connections_in_total_are_limited(self):
        server = self.server(network="max_connections: 25, max_connections_per_address: 25")
        opened = [server.raw() for _ in range(40)]
        self.assertEqual(sum(self.served(raw) for raw in opened), 25)
        for raw in opened:
            raw.socket.close()
        wait_until(lambda: server.descriptors() < 30, 10, "places are given back")
        with server.client() as client:
            client.ping()

    def test_strangers_are_limited_and_do_not_take_the_place_of_clients(self):
        server = self.server(network="max_connections_per_address: 4000")
        strangers = []
        self.addCleanup(lambda: [stranger.close() for stranger in strangers])

        def connect(count, address):
            for _ in range(count):
                strangers.append(live_server.connect_from(address, server.port, ANSWER_S))

        with server.client() as client:
            connect(UNAUTHENTICATED_OF_ONE_ADDRESS_MAX + 50, "127.0.0.2")
            wait_until(
                lambda: server.descriptors() > UNAUTHENTICATED_OF_ONE_ADDRESS_MAX,
                4,
                "strangers of one address are connected",
            )
            time.sleep(0.3)
            self.assertLess(server.descriptors(), UNAUTHENTICATED_OF_ONE_ADDRESS_MAX + 40)
            # Others are not kept out by them.
            with server.client() as newcomer:
                newcomer.ping()
            for number in range(3, 8):
                connect(UNAUTHENTICATED_OF_ONE_ADDRESS_MAX, f"127.0.0.{number}")
            wait_until(lambda: server.descriptors() > UNAUTHENTICATED_MAX, 4, "strangers are connected")
            client.ping()
            time.sleep(0.3)
            self.assertLess(server.descriptors(), UNAUTHENTICATED_MAX + 40)
            # After the time in which a connection has to be authenticated there is room for others again.
            wait_until(lambda: server.descriptors() < 40, 5 + LATE_S, "strangers are cut")
            with server.client() as late:
                late.ping()
            client.ping()

    def test_a_flood_of_strangers_is_told_of_and_does_not_fill_the_log(self):
        server = self.server()
        begin = time.monotonic()

        def first_frame(key=live_server.KEY, offset_ns=0, data=None):
            with server.raw() as stranger:
                hello = stranger.hello_header(os.urandom(page.NONCE_BYTES)).encode()
                stranger.send(page.seal(key, hello, time.time_ns() + offset_ns) if data is None else data)
                if offset_ns == 0:
                    stranger.socket.settimeout(ANSWER_S)
                    self.assertEqual(stranger.socket.recv(1), b"")

        told = {
            "signed with another key": lambda: first_frame(key=os.urandom(32)),
            "not the protocol of memkv": lambda: first_frame(data=b"GET /v1/health HTTP/1.1\r\n\r\n" * 2),
            "compare the clocks": lambda: first_frame(offset_ns=-70 * 10**9),
        }
        for _ in range(100):
            for strange in told.values():
                strange()
        for text in told:
            wait_until(lambda: text in server.log(), ANSWER_S, text)
        lines = [line for line in server.log().splitlines() if " WARN memkv::listener" in line]
        self.assertLessEqual(len(lines), 3 * (1 + int((time.monotonic() - begin) / 60)), lines)
        for line in lines:
            self.assertIn("last_peer=127.0.0.1", line)
            self.assertIn("count=", line)

    def test_a_storm_of_connects_leaves_the_server_serving(self):
        server = self.server()
        self.storm(server, 2)  # what is kept for good is touched now
        before = server.memory()
        connects, slowest = self.storm(server, 3)
        grown = server.memory() - before
        print(f"storm: {connects} connects, slowest answer to an honest client {slowest * 1000:.1f} ms, "
              f"memory grew by {grown // KIB} KiB")
        # Nothing may be kept of a connection that has ended.
        self.assertLess(grown, 2 * MIB + 256 * connects)

    def storm(self, server, seconds):
        """Connects from several threads for a time, beside an honest client."""
        end = time.monotonic() + seconds
        stormed = [0] * 4

        def strike(index):
            while time.monotonic() < end:
                try:
                    # Not the address of the honest client, who shares the places of strangers with it.
                    with live_server.connect_from("127.0.0.2", server.port, 2) as one:
                        one.send(b"MKVF" if index % 2 else b"")
                        stormed[index] += 1
                except OSError:
                    time.sleep(0.01)

        threads = [threading.Thread(target=strike, args=(index,)) for index in range(4)]
        for each in threads:
            each.start()
        slowest = 0.0
        with server.client() as honest:
            honest.put(b"storm", bytes(4 * KIB))
            while time.monotonic() < end:
                begin = time.monotonic()
                honest.get(b"storm")
                slowest = max(slowest, time.monotonic() - begin)
        for each in threads:
            each.join()
        wait_until(lambda: server.descriptors() < 40, 10, "the connections are gone")
        return sum(stormed), slowest

    def test_without_descriptors_accepting_pauses_and_goes_on_later(self):
        server = self.server(mode="file")
        with server.client() as client:
            client.put(b"before", b"value")
            limit = server.descriptors() + 10
            server.limit_descriptors(limit)
            opened = [server.raw() for _ in range(60)]
            served = []
            for raw in opened[:15]:
                raw.socket.settimeout(0.5)
                raw.send(raw.seal(raw.hello_header(os.urandom(16))))
            time.sleep(0.5)
            served = [raw for raw in opened[:15] if select.select([raw.socket], [], [], 0)[0]]
            self.assertGreaterEqual(len(served), 5)
            self.assertLess(len(served), 15)
            self.assertLessEqual(server.descriptors(), limit)
            # Those who are connected do not notice.
            self.assertEqual(client.get(b"before").data, b"value")
            client.put(b"during", os.urandom(200 * KIB))
            for raw in opened:
                raw.socket.close()
            # The rest of the queue is taken, found closed, and there is room again.
            with server.client() as late:
                self.assertEqual(len(late.get(b"during").data), 200 * KIB)
        self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main()
