"""Frames that no honest client sends, over real sockets: cut, merged, made up, altered, replayed, smuggled,
or stamped by a wrong clock (rows F26 to F31 and F35).

    hostile_frames_test.py MEMKV [TEST...]

MEMKV_FUZZ_SECONDS makes the made-up frames last longer than their few seconds; MEMKV_TEST_SEED repeats a run.
What is expected comes from docs/formats/wire.md.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import struct
import threading
import time
import unittest

import live_server
from live_server import KEY, KIB, MIB, SECOND_NS, Server, checks, page
from memkv_page_client import (
    DIGEST_CRC32C,
    DIGEST_KEYED,
    DIRECTION_REPLY,
    DIRECTION_REQUEST,
    TAG_ZERO,
    GetItem,
    Header,
    Opcode,
    PutItem,
    Status,
)

MEMKV = live_server.program()
SEED = live_server.seed()
FUZZ_S = float(os.environ.get("MEMKV_FUZZ_SECONDS") or 6)
KINDS = (DIGEST_CRC32C, DIGEST_KEYED)


def reset(connection: socket.socket) -> None:
    """Closes with a reset instead of an orderly end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class with_server(unittest.TestCase):
    """One server for all tests of a class; each must leave it serving and within its memory."""

    mode = "memory"

    @classmethod
    def setUpClass(cls):
        cls.server = Server(MEMKV, mode=cls.mode)
        cls.addClassCleanup(cls.server.close)
        cls.server.start()

    def tearDown(self):
        self.assertTrue(self.server.running, "the server ended\n" + self.server.log())
        with self.server.client() as client:
            client.put(b"still", b"serving")
            self.assertEqual(client.get(b"still").data, b"serving")
        self.assertLessEqual(self.server.memory(), self.server.memory_allowed(100))

    def holds(self, key, value):
        """What the store holds under a key, seen by an honest client: None is a miss."""
        with self.server.client() as client:
            found = client.get(key)
        self.assertEqual(None if found is None else found.data, value)


# F26: the same bytes, divided otherwise


class divided(with_server):
    def setUp(self):
        with self.server.client() as client:
            client.put(b"there", b"0123456789")
            client.put(b"empty", b"")

    def stream(self, raw):
        """Requests that do not depend on one another, and what each is answered with."""
        begin = raw.last_id
        batch = [PutItem(b"one", b"first"), PutItem(b"two", b""), PutItem(b"three", b"third")]
        digests = [page.payload_digest(DIGEST_CRC32C, b"", DIRECTION_REQUEST, 0, 0, index, item.value)
                   for index, item in enumerate(batch)]
        values = b"".join(item.value for item in batch)
        wanted = [
            (Opcode.Ping, b"", b"", {}, Status.Ok, b""),
            (Opcode.TcpPut, page.encode_key(b"written"), b"value of kind 1", {}, Status.Ok, b""),
            (Opcode.TcpPut, page.encode_key(b"keyed"), b"kind 2", {"digest_kind": DIGEST_KEYED},
             Status.Ok, b""),
            (Opcode.TcpPut, page.encode_key(b"wrong"), b"wrong", {"digest": b"\1" + bytes(15)},
             Status.DigestMismatch, b""),
            (Opcode.TcpGet, GetItem(b"there", 2, 5).encode(), b"", {}, Status.Ok, b"23456"),
            (Opcode.TcpGet, GetItem(b"missing").encode(), b"", {}, Status.NotFound, b""),
            (Opcode.Exists, page.encode_key(b"there"), b"", {}, Status.Ok, b""),
            (Opcode.TcpBatchPut, page.encode_put_items(batch, digests), values, {"digest": bytes(16)},
             Status.Ok, b""),
            (Opcode.TcpBatchGet, page.encode_get_items([GetItem(b"there"), GetItem(b"empty")]), b"", {},
             Status.Ok, b"0123456789"),
            (Opcode.TcpDelete, page.encode_key(b"missing"), b"", {}, Status.NotFound, b""),
            (0x77, b"xyz", b"some payload to be skipped", {}, Status.Unsupported, b""),
            (Opcode.Stat, b"", b"", {}, Status.Ok, b""),
        ]
        sent, answers = b"", {}
        for opcode, variable, payload, fields, status, data in wanted:
            header = raw.header(opcode, variable, payload, **fields)
            sent += raw.seal(header) + payload
            answers[raw.last_id] = (int(opcode), status, data)
        self.assertEqual(raw.last_id - begin, len(wanted))
        return sent, answers

    def must_be_answered(self, raw, answers):
        """All of them, in any order, and nothing else."""
        open_requests = dict(answers)
        while open_requests:
            header, payload = raw.frame()
            self.assertIn(header.request_id, open_requests)
            found = (header.opcode, page.status_of(header.status), payload)
            self.assertEqual(found, open_requests.pop(header.request_id))
        raw.must_go_on()

    def test_a_stream_cut_at_any_byte_is_answered_as_the_whole(self):
        with self.server.raw() as raw:
            raw.ready()
            length = len(self.stream(raw)[0])
            chance = random.Random(SEED)
            for cut in range(1, length, 1):
                sent, answers = self.stream(raw)
                raw.send(sent[:cut])
                # Now and then long enough for the server to have taken the first piece for sure.
                time.sleep(0.002 if chance.random() < 0.1 else 0.0003)
                raw.send(sent[cut:])
                self.must_be_answered(raw, answers)

    def test_a_hello_cut_at_any_byte_opens_the_connection(self):
        for cut in range(1, 200):
            with self.server.raw() as raw:
                nonce = os.urandom(page.NONCE_BYTES)
                sent = raw.seal(raw.hello_header(nonce))
                raw.send(sent[:cut])
                time.sleep(0.001)
                raw.send(sent[cut:])
                self.assertEqual(raw.answer(1, Status.Ok, opcode=Opcode.Hello).variable[:16], nonce)

    def test_one_byte_at_a_time_is_answered_as_the_whole(self):
        with self.server.raw() as raw:
            raw.hello()
            for _ in range(2):
                sent, answers = self.stream(raw)
                for at in range(len(sent)):
                    raw.send(sent[at : at + 1])
                self.must_be_answered(raw, answers)

    def test_many_frames_in_one_piece_are_all_answered(self):
        with self.server.raw() as raw:
            raw.ready()
            sent, answers = b"", {}
            for _ in range(40):
                more, wanted = self.stream(raw)
                sent += more
                answers |= wanted
            threading.Thread(target=raw.send, args=(sent,)).start()
            self.must_be_answered(raw, answers)

    def must_leave_nothing(self, end):
        payload = random.Random(SEED).randbytes(150)
        with self.server.client() as client:
            for cut in range(0, 128 + 8 + 4 + 40 + len(payload), 1):
                raw = self.server.raw()
                raw.ready()
                sent = raw.seal(raw.header(Opcode.TcpPut, page.encode_key(b"torn"), payload)) + payload
                raw.send(sent[:cut])
                end(raw.socket)
                raw.socket.close()
                self.assertLess(cut, len(sent))
                if cut % 16 == 0:
                    self.assertIsNone(client.get(b"torn"))
        self.holds(b"torn", None)

    def test_a_put_reset_at_any_byte_is_never_stored(self):
        self.must_leave_nothing(reset)

    def test_a_put_whose_sender_ends_at_any_byte_is_never_stored(self):
        self.must_leave_nothing(lambda connection: connection.shutdown(socket.SHUT_WR))

    def test_a_whole_put_that_is_reset_is_whole_or_absent(self):
        values = [os.urandom(100_000) for _ in range(30)]
        with self.server.client() as client:
            for value in values:
                raw = self.server.raw()
                raw.ready()
                raw.send(raw.seal(raw.header(Opcode.TcpPut, page.encode_key(b"torn"), value)) + value)
                reset(raw.socket)
                found = client.get(b"torn")
                self.assertTrue(found is None or found.data in values)
            client.delete(b"torn")


# F27: made-up frames


EDGES32 = (0, 1, 2, 7, 127, 128, 255, 511, 4095, 4096, 4097, 65535, MIB, 2**31 - 1, 2**31, 2**32 - 1)
EDGES64 = EDGES32 + (2**30, 2**30 + 1, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1)


class made_up(with_server):
    def variable(self, chance):
        """Right for some opcode, or near it, or nothing known."""
        key = chance.randbytes(chance.choice((1, 2, 30, 300, 1024, 1025)))
        keys = [b"k%d" % index for index in range(chance.choice((1, 2, 50)))]
        choices = [
            b"",
            page.encode_key(key),
            GetItem(key, chance.choice(EDGES64), chance.choice(EDGES64), chance.choice(EDGES64)).encode(),
            page.encode_key_list(keys),
            page.encode_get_items([GetItem(name, chance.choice(EDGES64)) for name in keys]),
            page.encode_put_items([PutItem(name, b"v" * chance.choice((0, 1, 9))) for name in keys],
                                  [chance.randbytes(16) for _ in keys]),
            struct.pack("<II", chance.choice(EDGES32), 0) + chance.randbytes(chance.randrange(200)),
            chance.randbytes(chance.randrange(400)),
        ]
        out = bytearray(chance.choice(choices))
        for _ in range(chance.choice((0, 0, 0, 1, 2, 8))):
            if out:
                edges = (0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256))
                out[chance.randrange(len(out))] = chance.choice(edges)
        cut = chance.choice((None, None, None, chance.randrange(len(out) + 1)))
        return bytes(out[:cut]) + (chance.randbytes(3) if chance.random() < 0.1 else b"")

    def fields(self, chance):
        """One field or a few at an edge."""
        every = {
            "flags": lambda: chance.choice((1, 2, 3, 4, 2**31, 2**32 - 1)),
            "deadline_ms": lambda: chance.choice(EDGES32),
            "namespace": lambda: chance.choice((b"", b"tenant", b"a/b", chance.randbytes(32), b"\0a")),
            "digest_kind": lambda: chance.choice((0, 1, 2, 2, 3, 255)),
            "zero_digest": lambda: chance.randbytes(3),
            "zero_frozen": lambda: chance.choice(EDGES32),
            "status": lambda: chance.randrange(256),
            "part_number": lambda: chance.choice(EDGES32),
            "digest": lambda: chance.choice((bytes(16), chance.randbytes(16), b"\1\2\3\4" + bytes(12))),
            "value_length": lambda: chance.choice(EDGES64),
            "value_offset": lambda: chance.choice(EDGES64),
            "version": lambda: chance.choice((0, 1, 2, 255)),
            "direction": lambda: chance.choice((0, 1, 2, 255)),
            "magic": lambda: chance.choice((b"MKVG", b"GET ", bytes(4))),
            "connection_tag": lambda: chance.choice((TAG_ZERO, chance.randbytes(16))),
            "request_id": lambda: chance.choice((0, 1, 2)),
            "payload_length": lambda: chance.choice(EDGES64),
            "header_length": lambda: chance.choice(EDGES32),
        }
        # The fields that end a connection are many: most frames leave them alone and get further.
        rare = ("version", "direction", "magic", "connection_tag", "request_id", "payload_length",
                "header_length")
        names = list(every) if chance.random() < 0.25 else [name for name in every if name not in rare]
        return {name: every[name]() for name in chance.sample(names, chance.choice((0, 0, 1, 1, 1, 2, 3)))}

    def must_end(self, raw, header, status=None):
        """Closed; without a byte, or after the one answer that is due."""
        if status is not None:
            answer, payload = raw.frame()
            self.assertEqual((answer.request_id, answer.status, payload),
                             (header.request_id, int(status), b""))
        with contextlib.suppress(OSError):  # it has closed already
            raw.socket.shutdown(socket.SHUT_WR)
        raw.must_close(10)

    def one(self, chance, raw, drops):
        """Sends one frame and holds the server to the page. Returns the drops so far; None: it is over."""
        opcode = chance.choice((*Opcode, *Opcode, chance.randrange(256)))
        payload = chance.choice((b"", b"", b"x", chance.randbytes(chance.randrange(300)), bytes(70_000)))
        fields = self.fields(chance)
        last = raw.last_id
        header = raw.header(opcode, self.variable(chance), payload, **fields)
        raw.last_id = max(last, header.request_id)
        offset = chance.choice((0,) * 20 + (-61, 70, -3600)) * SECOND_NS
        bad_mac = chance.random() < 0.05
        self.sent = f"{header}, offset {offset}, bad MAC {bad_mac}, payload of {len(payload)} bytes"
        encoded = header.encode()
        declared = len(encoded) if header.header_length is None else header.header_length
        sealed = bytearray(raw.seal(header, offset))
        if bad_mac:
            sealed[chance.randrange(-40, 0)] ^= 1 << chance.randrange(8)
        raw.send(bytes(sealed) + payload)

        wrong_frame = header.magic != page.MAGIC or header.direction != DIRECTION_REQUEST
        if wrong_frame or declared < 128 or declared > MIB or header.payload_length > 2**30:
            return self.must_end(raw, header)
        if declared != len(encoded) or bad_mac:
            return self.must_end(raw, header)
        if offset:
            raw.last_id = last
            if drops == 2:
                return self.must_end(raw, header)
            drops += 1
        elif header.version > 1:
            return self.must_end(raw, header, Status.UnsupportedVersion)
        elif opcode == Opcode.Hello or header.connection_tag != raw.tag:
            return self.must_end(raw, header)
        elif header.request_id <= last:
            if drops == 2:
                return self.must_end(raw, header)
            drops += 1
        elif header.payload_length != len(payload):
            if header.payload_length > len(payload):
                raw.socket.close()  # it waits for the rest, which never comes
                return None
            return self.must_end_somehow(raw)
        else:
            self.must_be_answered_once(raw, header)
            return drops
        if header.payload_length != len(payload):
            raw.socket.close()
            return None
        raw.must_go_on()
        return drops

    def must_end_somehow(self, raw):
        """The bytes behind a payload that is longer than its frame says are no frame."""
        raw.socket.settimeout(10)
        with contextlib.suppress(OSError):
            raw.socket.shutdown(socket.SHUT_WR)
            while raw.socket.recv(65536):
                pass
        return None

    def must_be_answered_once(self, raw, header):
        part = 0
        while True:
            answer, _ = raw.frame()
            self.assertEqual((answer.request_id, answer.opcode, answer.part_number, answer.connection_tag),
                             (header.request_id, header.opcode, part, raw.tag))
            self.assertIn(answer.status, set(Status))
            part += 1
            if answer.flags & page.FLAG_LAST:
                break
        raw.must_go_on()

    def test_made_up_frames_are_answered_dropped_or_refused_as_the_page_says(self):
        chance = random.Random(SEED)
        before = self.server.memory()
        end = time.monotonic() + FUZZ_S
        frames = connections = 0
        while time.monotonic() < end:
            connections += 1
            with self.server.raw() as raw:
                raw.ready()
                drops = 0
                while drops is not None and time.monotonic() < end:
                    frames += 1
                    try:
                        drops = self.one(chance, raw, drops)
                    except (checks.CheckFailed, AssertionError) as error:
                        self.fail(f"frame {frames} of seed {SEED} ({self.sent}): {error}\n"
                                  + self.server.log())
        grown = self.server.memory() - before
        print(f"made-up frames: {frames} on {connections} connections, memory grew by {grown // KIB} KiB")
        self.assertGreater(frames, 20 * FUZZ_S)

    def test_huge_promised_payloads_take_no_memory_before_they_come(self):
        before = self.server.memory()
        opened = []
        for index in range(300):
            raw = self.server.raw()
            raw.ready()
            raw.request(Opcode.Exists, page.encode_key(b"k"), payload_length=2**30 - index)
            opened.append(raw)
        grown = self.server.memory() - before
        for raw in opened:
            raw.socket.close()
        print(f"300 GiB promised: memory grew by {grown // KIB} KiB")
        self.assertLess(grown, 16 * MIB)

    def test_bytes_that_are_no_frames_close_without_a_byte(self):
        chance = random.Random(SEED)
        for _ in range(200):
            with self.server.raw() as raw:
                data = bytearray(chance.randbytes(chance.randrange(32, 2000)))
                data[0] = 0
                raw.send(bytes(data))
                raw.must_close()


# F28: what somebody on the way alters


class Proxy:
    """Passes frames on, between one client and the server; `alter` may change each whole frame.

    alter(direction, header bytes, trailer, payload) returns the bytes to be sent instead.
    """

    def __init__(self, server, alter):
        self._port = server.port
        self._alter = alter
        self.seen = []
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        self._threads = [threading.Thread(target=self._run, daemon=True)]
        self._threads[0].start()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        # shutdown before close: it wakes a thread that waits in accept.
        with contextlib.suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()

    def client(self, kind):
        """The honest client, which does not know that it speaks through this."""
        return page.Client("127.0.0.1", self.port, KEY, b"", kind, 10.0)

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._door.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near):
        with near, socket.create_connection(("127.0.0.1", self._port)) as far:
            back = threading.Thread(target=self._pass, args=(DIRECTION_REPLY, far, near), daemon=True)
            back.start()
            self._pass(DIRECTION_REQUEST, near, far)
            back.join()

    def _pass(self, direction, source, sink):
        with contextlib.suppress(OSError, EOFError):
            with source.makefile("rb") as stream:

                def take(count):
                    data = stream.read(count)
                    if len(data) < count:
                        raise EOFError
                    return data

                while True:
                    head = take(32)
                    length, _, payload_length = struct.unpack_from("<IIQ", head, 8)
                    header = head + take(length - 32)
                    trailer = take(40)
                    payload = take(payload_length)
                    self.seen.append((direction, header + trailer + payload))
                    sink.sendall(self._alter(direction, header, trailer, payload))
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def pass_on(_, header, trailer, payload):
    """Alters nothing."""
    return header + trailer + payload


def with_same_crc(data: bytes, wanted: int) -> bytes:
    """The data with its last four bytes chosen so that its CRC32C is as wanted: a CRC has no key."""
    table = page._CRC_TABLE
    by_top = {entry >> 24: index for index, entry in enumerate(table)}
    state = page.crc32c(data[:-4]) ^ 0xFFFFFFFF
    target = wanted ^ 0xFFFFFFFF
    indexes = []
    for _ in range(4):
        index = by_top[target >> 24]
        indexes.append(index)
        target = (target ^ table[index]) << 8 & 0xFFFFFFFF
    patch = []
    for index in reversed(indexes):
        patch.append((state ^ index) & 0xFF)
        state = state >> 8 ^ table[index]
    return data[:-4] + bytes(patch)


class altered(with_server):
    @staticmethod
    def altering(direction, change):
        """Alters the payloads of one direction."""

        def alter(this, header, trailer, payload):
            if this == direction and payload:
                payload = change(payload)
            return header + trailer + payload

        return alter

    def test_a_proxy_that_alters_nothing_is_not_noticed(self):
        for kind in KINDS:
            with Proxy(self.server, pass_on) as proxy, proxy.client(kind) as client:
                client.put(b"through", b"value")
                self.assertEqual(client.get(b"through").data, b"value")

    def test_a_put_altered_on_the_way_is_not_stored(self):
        value = os.urandom(100_000)
        for kind in KINDS:
            for at in (0, 50_000, 99_999):
                def change(payload, at=at):
                    return payload[:at] + bytes([payload[at] ^ 0x10]) + payload[at + 1 :]

                with self.server.client() as client:
                    client.put(b"altered", b"before")
                with Proxy(self.server, self.altering(DIRECTION_REQUEST, change)) as proxy:
                    with proxy.client(kind) as client:
                        with self.assertRaises(page.StatusError) as caught:
                            client.put(b"altered", value)
                        self.assertEqual(caught.exception.status, Status.DigestMismatch)
                        client.ping()
                self.holds(b"altered", b"before")

    def test_an_item_of_a_batch_altered_on_the_way_is_not_stored(self):
        def change(payload):
            return payload[:7] + bytes([payload[7] ^ 1]) + payload[8:]

        for kind in KINDS:
            with Proxy(self.server, self.altering(DIRECTION_REQUEST, change)) as proxy:
                with proxy.client(kind) as client:
                    client.delete_batch([b"left", b"right"])
                    found = client.put_batch([PutItem(b"left", b"12345"), PutItem(b"right", b"67890")])
                    self.assertEqual([status for status, _ in found], [Status.Ok, Status.DigestMismatch])
            self.holds(b"left", b"12345")
            self.holds(b"right", None)

    def test_a_payload_with_a_forged_crc_passes_kind_1_and_never_kind_2(self):
        # The hole that the page names: "With digest kind 1 somebody who can change packets can change
        # payloads."
        value, lie = os.urandom(1000), os.urandom(1000)
        forged = with_same_crc(lie, page.crc32c(value))
        self.assertEqual(page.crc32c(forged), page.crc32c(value))
        with Proxy(self.server, self.altering(DIRECTION_REQUEST, lambda _: forged)) as proxy:
            with proxy.client(DIGEST_CRC32C) as client:
                client.put(b"forged", value)
            self.holds(b"forged", forged)
            with proxy.client(DIGEST_KEYED) as client, self.assertRaises(page.StatusError) as caught:
                client.put(b"forged", value)
            self.assertEqual(caught.exception.status, Status.DigestMismatch)
        with self.server.client() as client:
            client.put(b"forged", value)
        with Proxy(self.server, self.altering(DIRECTION_REPLY, lambda _: forged)) as proxy:
            with proxy.client(DIGEST_CRC32C) as client:
                self.assertEqual(client.get(b"forged").data, forged)
            with proxy.client(DIGEST_KEYED) as client, self.assertRaises(page.ProtocolError):
                client.get(b"forged")

    def test_a_header_altered_on_the_way_closes_the_connection(self):
        # The digest cannot be made to fit: it is in the header, and so is all else that counts.
        with self.server.client() as client:
            client.put(b"header", b"before")
        for at in (4, 6, 8, 16, 24, 32, 33, 36, 40, 56, 88, 96, 97, 111, 112, 128, 136, 141):
            def alter(direction, header, trailer, payload, at=at):
                if direction == DIRECTION_REQUEST and payload:
                    header = header[:at] + bytes([header[at] ^ 1]) + header[at + 1 :]
                return header + trailer + payload

            with Proxy(self.server, alter) as proxy, proxy.client(DIGEST_CRC32C) as client:
                client.socket.settimeout(7)
                with self.assertRaises(page.ConnectionLost, msg=f"byte {at}"):
                    client.put(b"header", b"altered value")
        self.holds(b"header", b"before")

    def test_an_altered_reply_is_refused_by_the_client(self):
        value = os.urandom(5000)
        with self.server.client() as client:
            client.put(b"reply", value)

        def flipped(payload):
            return payload[:2500] + bytes([payload[2500] ^ 0x80]) + payload[2501:]

        for kind in KINDS:
            with Proxy(self.server, self.altering(DIRECTION_REPLY, flipped)) as proxy:
                with proxy.client(kind) as client, self.assertRaises(page.ProtocolError):
                    client.get(b"reply")
                with proxy.client(kind) as client, self.assertRaises(page.ProtocolError):
                    client.get_batch([GetItem(b"reply")])
            for at in (7, 24, 40, 92, 96, 112, 120, 128):
                def alter(direction, header, trailer, payload, at=at):
                    if direction == DIRECTION_REPLY and payload:
                        header = header[:at] + bytes([header[at] ^ 1]) + header[at + 1 :]
                    return header + trailer + payload

                with Proxy(self.server, alter) as proxy, proxy.client(kind) as client:
                    with self.assertRaises(page.ProtocolError, msg=f"byte {at}"):
                        client.get(b"reply")

    def test_an_old_or_foreign_reply_is_refused_by_the_client(self):
        with self.server.client() as client:
            client.put(b"old", b"first")
        kept = []

        def replay(direction, header, trailer, payload):
            frame = header + trailer + payload
            if direction == DIRECTION_REPLY and payload:
                kept.append(frame)
                return kept[0]
            return frame

        with Proxy(self.server, replay) as proxy:
            with proxy.client(DIGEST_KEYED) as client:
                self.assertEqual(client.get(b"old").data, b"first")
                with self.server.client() as other:
                    other.put(b"old", b"second")
                with self.assertRaises(page.ProtocolError):
                    client.get(b"old")
            # The same ids on another connection: the tag is not theirs.
            with proxy.client(DIGEST_KEYED) as client, self.assertRaises(page.ProtocolError):
                client.get(b"old")

    def test_a_request_sent_back_as_its_reply_is_refused_by_the_client(self):
        sent = []

        def reflect(direction, header, trailer, payload):
            if direction == DIRECTION_REQUEST:
                sent.append(header + trailer + payload)
                return sent[-1]
            return sent[-1] if header[6] == Opcode.Stat else header + trailer + payload

        with Proxy(self.server, reflect) as proxy, proxy.client(DIGEST_CRC32C) as client:
            with self.assertRaises(page.ProtocolError):
                client.stat()


# F29: replays


class replayed(with_server):
    mode = "file"

    def record(self, offset_s=0):
        """What a listener has of a connection: Hello, an old put, an old delete, and the answers."""
        raw = self.server.raw()
        raw.hello()
        heard = [raw.hello_frame]
        answers = []
        value = b"old value"
        for opcode, key, payload in ((Opcode.TcpPut, b"rolled", value), (Opcode.TcpDelete, b"gone", b"")):
            header = raw.header(opcode, page.encode_key(key), payload)
            heard.append(raw.seal(header, offset_s * SECOND_NS) + payload)
            raw.send(heard[-1])
            head = raw.read(32)
            length, _, payload_length = struct.unpack_from("<IIQ", head, 8)
            answers.append(head + raw.read(length - 32 + 40 + payload_length))
            self.assertEqual(head[7], Status.Ok)
        return raw, heard, answers

    def setUp(self):
        with self.server.client() as client:
            client.put(b"gone", b"to be deleted")

    def prepare(self, offset_s=0):
        raw, heard, answers = self.record(offset_s)
        with self.server.client() as client:
            client.put(b"rolled", b"new value")
            client.put(b"gone", b"here again")
        return raw, heard, answers

    def must_have_changed_nothing(self):
        self.holds(b"rolled", b"new value")
        self.holds(b"gone", b"here again")

    def play(self, frames, port=None):
        """As somebody without the shared key: just the bytes. Returns what is answered until the end."""
        with self.server.raw(port=port) as thief:
            heard = b""
            thief.socket.settimeout(10)
            for frame in frames:
                thief.send(frame)
                # Read now: bytes that it has not read when it closes make a reset, which takes answers away.
                hello = frame[6] == Opcode.Hello
                if select.select([thief.socket], [], [], 10 if hello else 0.05)[0]:
                    with contextlib.suppress(ConnectionResetError):
                        heard += thief.socket.recv(65536)
            with contextlib.suppress(OSError):  # a reset: it closed without having read all of this
                thief.socket.shutdown(socket.SHUT_WR)
                while more := thief.socket.recv(65536):
                    heard += more
            return heard

    def test_frames_replayed_on_their_own_connection_are_dropped(self):
        for offset_s in (0, -59, 59):
            raw, heard, _ = self.prepare(offset_s)
            with raw:
                raw.send(heard[1])
                raw.must_be_silent()
                raw.send(heard[2])
                raw.must_go_on()
                self.must_have_changed_nothing()
                raw.send(heard[1])
                raw.must_close()
            self.must_have_changed_nothing()

    def test_frames_replayed_on_another_connection_are_refused(self):
        for offset_s in (0, -59, 59):
            raw, heard, _ = self.prepare(offset_s)
            with raw:
                # The Hello is answered, with another nonce; nothing after it.
                answer = self.play(heard)
                self.assertEqual(len(answer), 224 + 40)
                for frame in heard[1:]:
                    self.assertEqual(self.play([frame]), b"")
                    self.assertEqual(len(self.play([heard[0], frame])), 224 + 40)
                with self.server.raw() as own:
                    own.ready()
                    own.send(heard[1])
                    own.must_close()
                self.must_have_changed_nothing()
                raw.must_go_on()

    def test_frames_sent_more_than_60_s_away_are_dropped_the_first_time_already(self):
        for offset_s in (-61, 70):
            with self.server.client() as client:
                client.put(b"rolled", b"new value")
            with self.server.raw() as raw:
                raw.ready()
                raw.request(Opcode.TcpPut, page.encode_key(b"rolled"), b"old value",
                            offset_ns=offset_s * SECOND_NS)
                raw.must_be_silent()
                raw.must_go_on()
            self.holds(b"rolled", b"new value")

    def test_frames_replayed_after_a_restart_are_refused(self):
        raw, heard, _ = self.prepare()
        raw.socket.close()
        for end in (self.server.stop, self.server.kill):
            end()
            self.server.start()
            self.assertEqual(len(self.play(heard)), 224 + 40)
            self.assertEqual(self.play(heard[1:]), b"")
            self.must_have_changed_nothing()

    def test_frames_replayed_at_another_server_are_refused(self):
        raw, heard, _ = self.prepare()
        with raw, Server(MEMKV, drive_mib=16) as other:
            with other.client() as client:
                client.put(b"gone", b"elsewhere")
            self.assertEqual(len(self.play(heard, other.port)), 224 + 40)
            self.assertEqual(self.play(heard[1:], other.port), b"")
            with other.client() as client:
                self.assertIsNone(client.get(b"rolled"))
                self.assertEqual(client.get(b"gone").data, b"elsewhere")

    def test_replies_sent_back_as_requests_are_refused(self):
        raw, _, answers = self.prepare()
        for answer in answers:
            with self.server.raw() as thief:
                thief.send(answer)
                thief.must_close()
        with raw:
            raw.send(answers[0])
            raw.must_close()
        self.must_have_changed_nothing()


# F30: smuggling


class smuggled(with_server):
    def setUp(self):
        with self.server.client() as client:
            client.put(b"target", b"keep")

    def hidden(self, raw, count=3):
        """Frames that this very connection would execute, if they were taken for frames."""
        frames = b""
        for index in range(count):
            header = raw.header(Opcode.TcpDelete, page.encode_key(b"target"), request_id=1000 + index)
            frames += raw.seal(header)
            value = b"smuggled"
            header = raw.header(Opcode.TcpPut, page.encode_key(b"target"), value, request_id=2000 + index)
            frames += raw.seal(header) + value
        raw.last_id = 10
        return frames

    def test_frames_within_payloads_that_are_skipped_are_not_executed(self):
        skipped = {
            "an unknown opcode": (0x99, b"", {}, Status.Unsupported),
            "a message for RDMA, which has no payload": (Opcode.Commit, b"", {}, Status.BadRequest),
            "a malformed header": (Opcode.TcpPut, page.encode_key(b"other"), {"flags": 1 << 9},
                                   Status.BadRequest),
            "a malformed variable part": (Opcode.TcpPut, b"\1", {}, Status.BadRequest),
            "a payload where none belongs": (Opcode.Ping, b"", {}, Status.BadRequest),
            "a key that is too long": (Opcode.TcpPut, page.encode_key(b"k" * 1025), {}, Status.TooLarge),
            "a wrong digest": (Opcode.TcpPut, page.encode_key(b"other"), {"digest": b"\7" + bytes(15)},
                               Status.DigestMismatch),
        }
        for name, (opcode, variable, fields, status) in skipped.items():
            for padding in (0, 1, 31, 8191, 100_000):
                with self.subTest(name, padding=padding), self.server.raw() as raw:
                    raw.ready()
                    payload = bytes(padding) + self.hidden(raw)
                    raw.answer(raw.request(opcode, variable, payload, **fields), status)
                    raw.must_go_on()
                    self.holds(b"target", b"keep")

    def test_frames_within_a_frame_of_stale_time_are_skipped_with_it(self):
        for seconds in (-61, 70):
            for padding in (0, 7, 8100, 200_000):
                with self.server.raw() as raw:
                    raw.ready()
                    payload = bytes(padding) + self.hidden(raw)
                    raw.request(Opcode.TcpPut, page.encode_key(b"late"), payload,
                                offset_ns=seconds * SECOND_NS)
                    raw.last_id = 10
                    raw.must_go_on()
                self.holds(b"target", b"keep")
                self.holds(b"late", None)

    def test_frames_behind_a_bad_mac_or_length_are_not_looked_for(self):
        def bad_mac(sealed):
            return sealed[:-1] + bytes([sealed[-1] ^ 1])

        def shorter_header(sealed):
            return sealed[:8] + struct.pack("<I", 128) + sealed[12:]

        def longer_header(sealed):
            return sealed[:8] + struct.pack("<I", 300) + sealed[12:]

        def no_payload(sealed):
            return sealed[:16] + bytes(8) + sealed[24:]

        def endless_payload(sealed):
            return sealed[:16] + b"\xff" * 8 + sealed[24:]

        for spoil in (bad_mac, shorter_header, longer_header, no_payload, endless_payload):
            with self.subTest(spoil.__name__), self.server.raw() as raw:
                raw.ready()
                payload = self.hidden(raw)
                sealed = raw.seal(raw.header(Opcode.TcpPut, page.encode_key(b"spoiled"), payload))
                raw.send(spoil(sealed) + payload)
                raw.must_close()
                self.holds(b"target", b"keep")
                self.holds(b"spoiled", None)

    def test_frames_within_a_stored_value_are_a_value(self):
        with self.server.raw() as raw:
            raw.ready()
            payload = self.hidden(raw)
            raw.answer(raw.request(Opcode.TcpPut, page.encode_key(b"holder"), payload), Status.Ok)
            raw.must_go_on()
        self.holds(b"target", b"keep")
        self.holds(b"holder", payload)


# F31, as far as TCP goes


class without_rdma(with_server):
    def test_messages_for_rdma_are_unsupported_and_the_connection_goes_on(self):
        session = struct.pack("<Q", 1)
        with self.server.raw() as raw:
            raw.ready()
            for opcode in page.RDMA_OPCODES:
                for variable in (b"", session, bytes(64), page.encode_key(b"key"), os.urandom(300)):
                    raw.answer(raw.request(opcode, variable), Status.Unsupported, opcode=opcode)
                    # None of them has a payload, which is looked at first.
                    raw.answer(raw.request(opcode, variable, os.urandom(70_000)), Status.BadRequest,
                               Status.Unsupported, opcode=opcode)
                raw.must_go_on()
            # Detached twice, a command after the detach: there is no session to be confused.
            for opcode in (Opcode.TcpAttach, Opcode.TcpDetach, Opcode.TcpDetach, Opcode.Write):
                raw.answer(raw.request(opcode, session), Status.Unsupported, opcode=opcode)
            raw.must_go_on()

    def test_a_client_that_is_killed_while_it_attaches_leaves_nothing(self):
        before = self.server.descriptors()
        for cut in range(1, 176, 5):
            raw = self.server.raw()
            raw.ready()
            raw.send(raw.seal(raw.header(Opcode.TcpAttach, struct.pack("<Q", 1)))[:cut])
            reset(raw.socket)
        live_server.wait_until(lambda: self.server.descriptors() <= before + 1, 10,
                               "the connections are gone")


# F35: clocks


class skewed_time:
    """The module time, for a client whose clock is wrong."""

    def __init__(self, offset_s):
        self._offset_ns = int(offset_s * SECOND_NS)

    def time_ns(self):
        return time.time_ns() + self._offset_ns

    @contextlib.contextmanager
    def for_the_client(self):
        real = page.time
        page.time = self
        try:
            yield
        finally:
            page.time = real


class clocks(with_server):
    def test_clients_59_s_away_are_served(self):
        for seconds in (-59, 59):
            with skewed_time(seconds).for_the_client(), self.server.client() as client:
                client.put(b"skewed", b"%d" % seconds)
                self.assertEqual(client.get(b"skewed").data, b"%d" % seconds)

    def test_two_clients_skewed_both_ways_see_each_other(self):
        early, late = skewed_time(-59), skewed_time(59)
        with early.for_the_client():
            first = self.server.client()
        with late.for_the_client():
            second = self.server.client()
        with first, second:
            for index in range(20):
                with early.for_the_client():
                    first.put(b"both", b"early %d" % index)
                with late.for_the_client():
                    self.assertEqual(second.get(b"both").data, b"early %d" % index)
                    second.put(b"both", b"late %d" % index)
                with early.for_the_client():
                    self.assertEqual(first.get(b"both").data, b"late %d" % index)

    def test_clients_more_than_60_s_away_are_not_answered_and_are_told_to_suspect_the_clock(self):
        for seconds in (-61, 70):
            with skewed_time(seconds).for_the_client():
                begin = time.monotonic()
                with self.assertRaises(page.ConnectionLost) as caught:
                    self.server.client()
                self.assertIn("clocks differ by more than 60 s", str(caught.exception))
                # Silence, until the time in which a connection has to be authenticated is over.
                self.assertGreater(time.monotonic() - begin, 4)

    def test_a_clock_that_steps_away_ends_the_service_and_one_that_steps_back_restores_it(self):
        with self.server.client() as client:
            client.put(b"stepped", b"before")
            with skewed_time(70).for_the_client():
                taken = client.submit(Opcode.TcpDelete, page.encode_key(b"stepped"))
            self.assertFalse(select.select([client.socket], [], [], 0.5)[0])
            client.ping()
            self.assertEqual(client.get(b"stepped").data, b"before")
            self.assertGreater(taken, 0)


if __name__ == "__main__":
    unittest.main()
