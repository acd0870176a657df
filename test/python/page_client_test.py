"""Proves that docs/formats/wire.md is complete, with a client written from it alone.

    python3 page_client_test.py vectors
    python3 page_client_test.py server HOST PORT KEYHEX [NAME...]

The first checks the numbers on the page and needs nothing. The second runs every check (or those whose name
contains one of the NAMEs) against a server that runs already, prints a line for each and ends with
"N passed, N failed"; the exit status is 0 when none failed. It writes almost only into namespaces of its own,
so a server with other data may be used. MEMKV_TEST_SEED repeats the values of an earlier run.
"""

from __future__ import annotations

import hmac
import os
import random
import re
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import memkv_page_client as page
from memkv_page_client import (
    DIGEST_CRC32C,
    DIGEST_KEYED,
    DIRECTION_REPLY,
    DIRECTION_REQUEST,
    FLAG_LAST,
    TAG_ZERO,
    Client,
    GetItem,
    Header,
    Opcode,
    PutItem,
    Status,
    StatusError,
)

PAGE_PATH = Path(__file__).resolve().parents[2] / "docs" / "formats" / "wire.md"
KIB = 1024
MIB = 1024 * KIB
SECOND_NS = 10**9
ANSWER_S = 10.0
CLOSE_S = 30.0
SILENCE_S = 0.4


class CheckFailed(Exception):
    """A server or a vector is not as the page says; the text says what was expected and what came."""


class CheckSkipped(Exception):
    """A check does not apply to this server; the text says why."""


def expect(condition: bool, text: str) -> None:
    """Fails the check with a sentence unless the condition holds."""
    if not condition:
        raise CheckFailed(text)


def expect_equal(found: object, expected: object, what: str) -> None:
    """Fails the check, naming both values shortly, unless they are equal."""
    if found != expected:
        raise CheckFailed(f"{what}: expected {_short(expected)}, found {_short(found)}")


def _short(value: object) -> str:
    if isinstance(value, (bytes, bytearray)) and len(value) > 24:
        return f"{len(value)} bytes {bytes(value[:12]).hex()}..."
    text = repr(value)
    return text if len(text) <= 160 else text[:157] + "..."


def expect_status(function: Callable[[], object], status: Status, what: str) -> StatusError:
    """Fails the check unless the call is answered with that status; gives the error for a closer look."""
    try:
        result = function()
    except StatusError as error:
        expect_equal(error.status.name, status.name, what)
        return error
    raise CheckFailed(f"{what}: expected {status.name}, found the result {_short(result)}")


# The vectors of the page


def fenced_blocks(text: str, heading: str) -> list[list[str]]:
    """The lines of each fenced block in the section whose heading begins so."""
    section = re.search(rf"^{re.escape(heading)}.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    expect(section is not None, f"the page has no section {heading!r}")
    return [
        block.splitlines() for block in re.findall(r"^```\n(.*?)^```", section[0], re.MULTILINE | re.DOTALL)
    ]


def worked_example(text: str) -> dict[str, bytes]:
    """The named values of section 18; what stands in parentheses belongs to the name."""
    values: dict[str, bytes] = {}
    name = ""
    for line in fenced_blocks(text, "## 18 ")[0]:
        if line.startswith(" "):
            values[name] += bytes.fromhex(line.strip())
        else:
            name = line.rstrip(":")
            values[name] = b""
    return values


def split_frame(frame: bytes) -> tuple[Header, int, bytes]:
    """Header, time stamp and payload of a whole frame; the lengths in it must add up."""
    header_length, _, payload_length = struct.unpack_from("<IIQ", frame, 8)
    end = header_length + page.TRAILER_BYTES
    expect_equal(len(frame), end + payload_length, "the length of the frame")
    return (
        Header.decode(frame[:header_length]),
        int.from_bytes(frame[header_length:][:8], "little"),
        frame[end:],
    )


class Vectors:
    """The checks of the page's own numbers."""

    def __init__(self) -> None:
        self.text = PAGE_PATH.read_text(encoding="utf-8")
        self.values = worked_example(self.text)
        self.shared_key = bytes.fromhex(
            re.search(r"^Shared key `([0-9a-f]{64})`", self.text, re.MULTILINE)[1]
        )
        nonces = (self.values["client_nonce"], self.values["server_nonce"])
        self.tag = page.derive_connection_tag(self.shared_key, 1, *nonces)
        self.payload_key = page.derive_payload_key(self.shared_key, 1, *nonces)
        self.used = {"client_nonce", "server_nonce"}

    def take(self, name: str) -> bytes:
        """A value of section 18, remembered as checked."""
        expect(name in self.values, f"section 18 has no {name!r}")
        self.used.add(name)
        return self.values[name]

    def frame_must_be(self, name: str, header: Header, payload: bytes = b"", item: int = 0) -> None:
        """Builds the frame from its fields, with the stamp of the page, and compares all bytes."""
        found = self.take(name)
        _, stamp, _ = split_frame(found)
        header.payload_length = len(payload)
        header.digest = page.payload_digest(
            header.digest_kind,
            self.payload_key,
            header.direction,
            header.request_id,
            header.part_number,
            item,
            payload,
        )
        expect_equal(page.seal(self.shared_key, header.encode(), stamp) + payload, found, name)

    def crc(self) -> None:
        """The CRC32C of section 1."""
        expected = re.search(r"`123456789` is (0x[0-9A-F]{8})", self.text)
        expect(expected is not None, "section 1 has no CRC32C of 123456789")
        expect_equal(page.crc32c(b"123456789"), int(expected[1], 16), "the CRC32C of 123456789")

    def crc_of_long_messages(self) -> None:
        """Folding must agree with the plain loop at all lengths near a fold."""
        chance = random.Random(1)
        for size in [*range(0, 300), 1023, 1024, 1025, 8191, 8192, 8193, 65535, 65536, 65537]:
            data = chance.randbytes(size)
            crc = 0xFFFFFFFF
            for byte in data:
                crc ^= byte
                for _ in range(8 if size < 300 else 0):
                    crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
                if size >= 300:
                    crc = (crc >> 8) ^ page._CRC_TABLE[crc & 0xFF]
            expect_equal(page.crc32c(data), crc ^ 0xFFFFFFFF, f"the CRC32C of {size} bytes")

    def opcodes(self) -> None:
        """The table of section 10."""
        section = self.text[self.text.index("## 10 ") : self.text.index("## 11 ")]
        found = {int(code, 16): name for code, name in re.findall(r"\| (0x[0-9A-F]{2}) \| (\w+)", section)}
        expect_equal(found, {int(opcode): opcode.name for opcode in Opcode}, "the opcodes")

    def statuses(self) -> None:
        """The table of section 11."""
        section = self.text[self.text.index("## 11 ") : self.text.index("## 12 ")]
        found = {int(code): name for code, name in re.findall(r"^\| (\d+) \| (\w+)", section, re.MULTILINE)}
        expect_equal(found, {int(status): status.name for status in Status}, "the status codes")

    def limits(self) -> None:
        """The table of section 14."""
        section = self.text[self.text.index("## 14 ") : self.text.index("## 15 ")]
        units = {"MiB": MIB, "GiB": 1024 * MIB, "s": SECOND_NS, "": 1}
        for name, number, unit in re.findall(r"^\| `(\w+)` \| ([0-9,]+) ?(\w*) \|", section, re.MULTILINE):
            expected = int(number.replace(",", "")) * units[unit]
            expect_equal(getattr(page, name.upper(), None), expected, name)

    def placement(self) -> None:
        """The block of section 15: seeds, key ids, scores and servers, with the list in any order."""
        servers: list[str] = []
        seen = 0
        for line in fenced_blocks(self.text, "## 15 ")[1]:
            if line.startswith("servers: "):
                servers = line.split()[1:]
            elif line.startswith("seed "):
                _, server, seed = line.split()
                expect_equal(f"{page.server_seed(page.normalise_server(server)):016x}", seed, line)
                seen += 1
            else:
                match = re.fullmatch(
                    r'namespace "(.*)" key "(.*)" key_id ([0-9a-f]{32}) server (\S+) score ([0-9a-f]{16})',
                    line,
                )
                expect(match is not None, f"cannot read the vector {line!r}")
                namespace, key = match[1].encode(), match[2].encode()
                identity = page.key_id(namespace, key)
                expect_equal(identity.hex(), match[3], line)
                expect_equal(page.place(reversed(servers), namespace, key), match[4], line)
                expect_equal(f"{page.placement_score(match[4], identity):016x}", match[5], line)
                seen += 1
        expect(seen >= 11, f"section 15 has only {seen} vectors that can be read")

    def normalising(self) -> None:
        """What section 15 says in words."""
        for written, normal in {
            "KV-A.Example.": "kv-a.example:9900",
            "10.0.0.1": "10.0.0.1:9900",
            "h:09901": "h:9901",
            "[2001:DB8:0:0::1]": "[2001:db8::1]:9900",
            "2001:db8::1": "[2001:db8::1]:9900",
            "[::1]:1": "[::1]:1",
            "[::ffff:1.2.3.4]:1": "[::ffff:102:304]:1",
            "::": "[::]:9900",
            "1:0:2:3:4:5:6:7": "[1:0:2:3:4:5:6:7]:9900",
            "1:0:0:2:0:0:0:3": "[1:0:0:2::3]:9900",
            "1:0:0:2:3:0:0:4": "[1::2:3:0:0:4]:9900",
            "1::": "[1::]:9900",
        }.items():
            expect_equal(page.normalise_server(written), normal, written)
        for written in (
            "",
            ":1",
            "h:",
            "h:0",
            "h:65536",
            "h:x",
            "[::1",
            "[h]:1",
            "[::1]1",
            "fe80::1%eth0",
            "1.2.3",
            "a.7",
            "256.1.1.1",
            "::g",
        ):
            try:
                found = page.normalise_server(written)
            except ValueError:
                continue
            raise CheckFailed(f"{written!r} is no server but became {found!r}")

    def derivations(self) -> None:
        """Tag, payload key and key id of section 18."""
        expect_equal(self.tag, self.take("connection_tag"), "connection_tag")
        expect_equal(self.payload_key, self.take("payload_key"), "payload_key")
        identity = page.key_id(b"tenant-a", self.take("key"))
        expect_equal(identity, self.take('key_id in namespace "tenant-a"'), "key_id")

    def queue_pair_tag(self) -> None:
        """The tag that messages of a queue pair carry."""
        numbers = struct.pack("<IIII", 0x123, 0x456, 0x789, 0xABC)
        text = b"memkv queue pair tag" + self.tag + self.take("queue_pair_nonce") + numbers
        expect_equal(
            hmac.digest(self.shared_key, text, "sha256")[:16],
            self.take("queue_pair_tag (client 0x123 from packet 0x456, server 0x789 from packet 0xabc)"),
            "queue_pair_tag",
        )

    def hello(self) -> None:
        """Both Hello frames."""
        variable = page.encode_hello(self.values["client_nonce"])
        self.frame_must_be("hello_request", Header(Opcode.Hello, 1, variable=variable))
        header, stamp, payload = split_frame(self.take("hello_reply"))
        answer = page.ServerHello.decode(header.variable)
        expect_equal(answer.client_nonce, self.values["client_nonce"], "client_nonce")
        expect_equal(answer.server_nonce, self.values["server_nonce"], "server_nonce")
        expect_equal(answer.server_id, self.take("server_id"), "server_id")
        expect_equal((answer.version, answer.capabilities), (1, 0), "version and capabilities")
        for name in (
            "value_bytes_max",
            "header_bytes_max",
            "batch_items_max",
            "batch_payload_bytes_max",
            "part_bytes_max",
            "frames_in_flight_max",
            "idle_timeout_ms",
        ):
            expect_equal(getattr(answer, name), getattr(page, name.upper()), name)
        again = Header(Opcode.Hello, 1, variable=header.variable, direction=DIRECTION_REPLY, flags=FLAG_LAST)
        self.frame_must_be("hello_reply", again)

    def _put(self, name: str, request_id: int, kind: int, deadline_ms: int) -> None:
        header = Header(
            Opcode.TcpPut,
            request_id,
            variable=page.encode_key(self.values["key"]),
            connection_tag=self.tag,
            namespace=b"tenant-a",
            digest_kind=kind,
            deadline_ms=deadline_ms,
        )
        self.frame_must_be(name, header, self.take("value"))

    def put_of_kind_1(self) -> None:
        """A put with CRC32C and a deadline."""
        self._put('put_request (id 2, namespace "tenant-a", deadline 250 ms, kind 1)', 2, DIGEST_CRC32C, 250)

    def put_of_kind_2(self) -> None:
        """The same put with a keyed digest."""
        self._put("put_request (id 3, kind 2)", 3, DIGEST_KEYED, 0)

    def attach_request(self) -> None:
        """A queue pair of the client's for the second device of the server."""
        address = page.RdmaAddress(
            path_mtu=4096,
            gid=bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 1]),
            number=0x123,
            packet_number=0x456,
            reads_served_max=16,
        )
        self.frame_must_be(
            "attach_request (id 5, rail 1, RC)",
            Header(
                Opcode.TcpAttach,
                5,
                variable=page.encode_attach(1, address),
                connection_tag=self.tag,
                namespace=b"tenant-a",
            ),
        )

    def batch_write_request(self) -> None:
        """The value, to be fetched from the client's memory."""
        value = self.take("value")
        digest = page.payload_digest(DIGEST_KEYED, self.payload_key, DIRECTION_REQUEST, 6, 0, 0, value)
        item = page.WriteItem(self.values["key"], 0x1234, 0x7F00_0000_1000, len(value), digest, True)
        self.frame_must_be(
            "batch_write_request (id 6, session 9, kind 2, IF_ABSENT)",
            Header(
                Opcode.BatchWrite,
                6,
                variable=page.encode_session_batch(9, [item]),
                connection_tag=self.tag,
                namespace=b"tenant-a",
                digest_kind=DIGEST_KEYED,
            ),
        )

    def put_reply(self) -> None:
        """The answer to the first put."""
        self.frame_must_be(
            "put_reply (to id 2, generation 7)",
            Header(
                Opcode.TcpPut,
                2,
                variable=struct.pack("<Q", 7),
                direction=DIRECTION_REPLY,
                flags=FLAG_LAST,
                connection_tag=self.tag,
            ),
        )

    def get_request(self) -> None:
        """Bytes 4 to 8, which are 5 bytes from offset 4."""
        self.frame_must_be(
            "get_request (id 4, bytes 4 to 8)",
            Header(
                Opcode.TcpGet,
                4,
                variable=GetItem(self.values["key"], 4, 5).encode(),
                connection_tag=self.tag,
                namespace=b"tenant-a",
            ),
        )

    def get_reply(self) -> None:
        """The part that answers it."""
        value = self.values["value"]
        self.frame_must_be(
            "get_reply (to id 4)",
            Header(
                Opcode.TcpGet,
                4,
                variable=struct.pack("<Q", 7),
                direction=DIRECTION_REPLY,
                flags=FLAG_LAST,
                connection_tag=self.tag,
                value_length=len(value),
                value_offset=4,
            ),
            value[4:9],
        )

    def every_frame_is_authentic(self) -> None:
        """The MAC of each frame, checked as a receiver does, and refused with any one byte changed."""
        for name, frame in self.values.items():
            if not frame.startswith(page.MAGIC):
                continue
            length = int.from_bytes(frame[8:12], "little")
            header, trailer = frame[:length], frame[length : length + page.TRAILER_BYTES]
            expect(page.trailer_is_authentic(self.shared_key, header, trailer), f"the MAC of {name} is wrong")
            for position in range(length):
                changed = bytearray(header)
                changed[position] ^= 1
                expect(
                    not page.trailer_is_authentic(self.shared_key, bytes(changed), trailer),
                    f"{name} with byte {position} changed is still taken for authentic",
                )

    def nothing_is_left_unchecked(self) -> None:
        """A value added to section 18 without a check here is a failure, not a silence."""
        expect_equal(sorted(set(self.values) - self.used), [], "values of section 18 that nothing checks")


def run_vectors() -> int:
    """All checks of the page's numbers; the order matters only for the last one."""
    vectors = Vectors()
    methods = [
        vectors.crc,
        vectors.crc_of_long_messages,
        vectors.opcodes,
        vectors.statuses,
        vectors.limits,
        vectors.placement,
        vectors.normalising,
        vectors.derivations,
        vectors.queue_pair_tag,
        vectors.hello,
        vectors.put_of_kind_1,
        vectors.put_of_kind_2,
        vectors.put_reply,
        vectors.get_request,
        vectors.get_reply,
        vectors.attach_request,
        vectors.batch_write_request,
        vectors.every_frame_is_authentic,
        vectors.nothing_is_left_unchecked,
    ]
    return run_all([(method.__name__.replace("_", " "), method) for method in methods])


def run_all(checks: Sequence[tuple[str, Callable[[], None]]]) -> int:
    """Runs named checks one after the other and returns the exit status."""
    passed = failed = skipped = 0
    for name, check in checks:
        begin = time.monotonic()
        try:
            check()
        except CheckSkipped as reason:
            skipped += 1
            print(f"skip  {name}: {reason}", flush=True)
            continue
        except Exception as error:  # a server that lies must not end the run, whatever it makes Python raise
            failed += 1
            kind = "" if isinstance(error, (CheckFailed, page.MemkvError)) else f"{type(error).__name__}: "
            print(f"FAIL  {name}: {kind}{error}", flush=True)
            continue
        passed += 1
        seconds = time.monotonic() - begin
        print(f"ok    {name}" + (f" ({seconds:.1f} s)" if seconds > 1 else ""), flush=True)
    if skipped:
        print(f"{skipped} skipped")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


# A live server


@dataclass(frozen=True)
class Target:
    """The server under test and what must not be guessed twice."""

    host: str
    port: int
    shared_key: bytes
    namespace: bytes
    seed: int
    capabilities: int
    value_bytes_max: int

    @property
    def kinds(self) -> tuple[int, ...]:
        """The digest kinds that the server takes."""
        required = self.capabilities & page.CAPABILITY_KEYED_REQUIRED
        return (DIGEST_KEYED,) if required else (DIGEST_CRC32C, DIGEST_KEYED)

    def client(self, kind: int | None = None, namespace: bytes | None = None) -> Client:
        """A connected client of a kind the server takes."""
        return Client(
            self.host,
            self.port,
            self.shared_key,
            self.namespace if namespace is None else namespace,
            self.kinds[0] if kind is None else kind,
        )

    def chance(self, salt: str) -> random.Random:
        """A generator that depends on the run's seed and the check alone."""
        return random.Random(f"{self.seed} {salt}")


class Raw:
    """A connection whose bytes the check writes itself, for frames that no client would send."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.socket = socket.create_connection((target.host, target.port), timeout=ANSWER_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tag = TAG_ZERO
        self.payload_key = b""
        self.server_nonce = b""
        self.last_id = 0
        self.hello_frame = b""

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *unused: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Writes bytes; that the server has closed already is for the next read to find."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def header(self, opcode: int, variable: bytes = b"", payload: bytes = b"", **fields) -> Header:
        """A correct request header with the next id, but for the fields given."""
        self.last_id = fields.setdefault("request_id", self.last_id + 1)
        fields.setdefault("connection_tag", self.tag)
        fields.setdefault("namespace", self.target.namespace)
        fields.setdefault("digest_kind", self.target.kinds[0])
        fields.setdefault("payload_length", len(payload))
        if "digest" not in fields:
            kind = fields["digest_kind"]
            fields["digest"] = page.payload_digest(
                kind if kind in (DIGEST_CRC32C, DIGEST_KEYED) else DIGEST_CRC32C,
                self.payload_key,
                DIRECTION_REQUEST,
                fields["request_id"],
                0,
                0,
                payload,
            )
        return Header(opcode, variable=variable, **fields)

    def seal(self, header: Header, offset_ns: int = 0) -> bytes:
        """Header and trailer, stamped with this machine's time and the offset."""
        return page.seal(self.target.shared_key, header.encode(), time.time_ns() + offset_ns)

    def request(
        self, opcode: int, variable: bytes = b"", payload: bytes = b"", offset_ns: int = 0, **fields
    ) -> int:
        """Sends one frame whose MAC is good and returns its id."""
        header = self.header(opcode, variable, payload, **fields)
        self.send(self.seal(header, offset_ns) + payload)
        return header.request_id

    def hello_header(self, nonce: bytes, **fields) -> Header:
        """A correct Hello, but for the fields given."""
        variable = fields.pop("variable", None) or page.encode_hello(nonce)
        fields = {"namespace": b"", "connection_tag": TAG_ZERO, "digest_kind": DIGEST_CRC32C} | fields
        return self.header(Opcode.Hello, variable, **fields)

    def hello(self) -> Raw:
        """Opens the connection properly, up to and without the first frame that carries the tag."""
        nonce = os.urandom(page.NONCE_BYTES)
        self.hello_frame = self.seal(self.hello_header(nonce))
        self.send(self.hello_frame)
        answer = self.answer(self.last_id, Status.Ok, opcode=Opcode.Hello)
        server = page.ServerHello.decode(answer.variable)
        expect_equal(server.client_nonce, nonce, "the nonce in the Hello reply")
        self.server_nonce = server.server_nonce
        key = self.target.shared_key
        self.tag = page.derive_connection_tag(key, server.version, nonce, server.server_nonce)
        self.payload_key = page.derive_payload_key(key, server.version, nonce, server.server_nonce)
        return self

    def ready(self) -> Raw:
        """Opens the connection and authenticates it."""
        self.hello()
        self.must_go_on()
        return self

    def read(self, size: int, timeout_s: float = ANSWER_S) -> bytes:
        """Exactly so many bytes, or CheckFailed."""
        self.socket.settimeout(timeout_s)
        data = b""
        while len(data) < size:
            try:
                more = self.socket.recv(size - len(data))
            except TimeoutError as error:
                raise CheckFailed(f"no answer within {timeout_s:g} s") from error
            except ConnectionResetError as error:
                raise CheckFailed("the server reset the connection where an answer was due") from error
            if not more:
                raise CheckFailed("the server closed the connection where an answer was due")
            data += more
        return data

    def frame(self) -> tuple[Header, bytes]:
        """The next reply frame, its MAC and time checked."""
        head = self.read(page.FROZEN_BYTES)
        length, _, payload_length = struct.unpack_from("<IIQ", head, 8)
        expect(head[:4] == page.MAGIC, f"a reply begins with {head[:4].hex()}")
        expect(page.FIXED_BYTES <= length <= page.HEADER_BYTES_MAX, f"a reply has a header of {length} bytes")
        head += self.read(length - page.FROZEN_BYTES)
        trailer = self.read(page.TRAILER_BYTES)
        expect(
            page.trailer_is_authentic(self.target.shared_key, head, trailer), "the MAC of a reply is wrong"
        )
        drift = abs(int.from_bytes(trailer[:8], "little") - time.time_ns())
        expect(
            drift <= page.DRIFT_NS_MAX, f"a reply is stamped {drift / SECOND_NS:.0f} s away from this clock"
        )
        header = Header.decode(head)
        expect_equal(
            (header.version, header.direction), (1, DIRECTION_REPLY), "version and direction of a reply"
        )
        return header, self.read(payload_length)

    def answer(
        self, request_id: int, *statuses: Status, opcode: int | None = None, tag: bytes | None = None
    ) -> Header:
        """The next frame: it must be the whole reply to that request and have one of the statuses."""
        header, payload = self.frame()
        expect_equal(header.request_id, request_id, "the request id of a reply")
        if opcode is not None:
            expect_equal(header.opcode, int(opcode), "the opcode of a reply")
        found = page.status_of(header.status)
        expect(found in statuses, f"expected {' or '.join(s.name for s in statuses)}, found {found.name}")
        expect_equal(header.flags, FLAG_LAST, "the flags of a reply")
        expect_equal(header.connection_tag, self.tag if tag is None else tag, "the tag of a reply")
        zeros = (
            header.zero_frozen,
            header.zero_digest,
            header.deadline_ms,
            header.namespace,
            header.part_number,
        )
        expect_equal(zeros, (0, bytes(3), 0, bytes(32), 0), "fields of a reply that are zero")
        expect(
            header.digest_kind in (DIGEST_CRC32C, DIGEST_KEYED),
            f"a reply has digest kind {header.digest_kind}",
        )
        if not payload:
            expect_equal(header.digest, page.DIGEST_ZERO, "the digest of a reply without payload")
        if found is not Status.Ok and header.opcode != Opcode.Hello:
            expect_equal((header.variable, payload), (b"", b""), "variable part and payload of a failure")
        return header

    def must_go_on(self) -> None:
        """The connection must still be in step: the very next frame is the answer to a Ping."""
        self.answer(self.request(Opcode.Ping), Status.Ok, opcode=Opcode.Ping)

    def must_be_silent(self) -> None:
        """Nothing may come and the connection may not end."""
        readable, _, _ = select.select([self.socket], [], [], SILENCE_S)
        if readable:
            try:
                data = self.socket.recv(FIRST_BYTES)
            except ConnectionResetError:
                data = b""
            raise CheckFailed(
                f"expected silence, found {len(data)} bytes of an answer"
                if data
                else "expected silence, found the connection closed"
            )

    def must_close(self, timeout_s: float = CLOSE_S) -> None:
        """The connection must end without another byte."""
        self.socket.settimeout(timeout_s)
        try:
            data = self.socket.recv(FIRST_BYTES)
        except ConnectionResetError:
            return
        except TimeoutError as error:
            raise CheckFailed(f"the server did not close the connection within {timeout_s:g} s") from error
        expect(
            not data, f"the server sent {len(data)} bytes where it had to close silently: {_short(data[:32])}"
        )


FIRST_BYTES = 4096
CHECKS: list[tuple[str, Callable[[Target], None]]] = []


def check(name: str) -> Callable[[Callable[[Target], None]], Callable[[Target], None]]:
    """Puts a function on the list of checks under a name."""

    def register(function: Callable[[Target], None]) -> Callable[[Target], None]:
        CHECKS.append((name, function))
        return function

    return register


def check_each(name: str, cases: dict[str, object]) -> Callable:
    """Puts one check for each case on the list; the function gets the case's value too."""

    def register(function: Callable[[Target, object], None]) -> Callable[[Target, object], None]:
        for label, value in cases.items():
            CHECKS.append((f"{name}: {label}", lambda target, value=value: function(target, value)))
        return function

    return register


KINDS = {"kind 1": DIGEST_CRC32C, "kind 2": DIGEST_KEYED}


def need_kind(target: Target, kind: int) -> None:
    """Skips the check when the server does not take that kind."""
    if kind not in target.kinds:
        raise CheckSkipped("the server requires keyed digests")


# Operations


@check("hello announces limits within the page's")
def _(target: Target) -> None:
    with target.client() as client:
        server = client.server
        expect_equal(server.version, 1, "the version")
        expect(any(server.server_nonce), "the server nonce is zero")
        expect(any(server.server_id), "the server id is zero")
        expect(0 < server.value_bytes_max <= page.VALUE_BYTES_MAX, "value_bytes_max is above 1 GiB or 0")
        for name in (
            "header_bytes_max",
            "batch_items_max",
            "batch_payload_bytes_max",
            "part_bytes_max",
            "frames_in_flight_max",
            "idle_timeout_ms",
        ):
            expect_equal(getattr(server, name), getattr(page, name.upper()), name)


@check("hello keeps the server id and takes a fresh nonce for each connection")
def _(target: Target) -> None:
    with target.client() as one, target.client() as two:
        expect_equal(one.server.server_id, two.server.server_id, "the server id of a second connection")
        expect(one.server.server_nonce != two.server.server_nonce, "two connections have one server nonce")


@check("hello with a higher version and unknown capabilities gets version 1")
def _(target: Target) -> None:
    with Raw(target) as raw:
        nonce = os.urandom(16)
        raw.send(raw.seal(raw.hello_header(nonce, variable=page.encode_hello(nonce, 255, page._MASK64))))
        answer = raw.answer(1, Status.Ok, opcode=Opcode.Hello)
        expect_equal(page.ServerHello.decode(answer.variable).version, 1, "the version")


@check_each("ping", KINDS)
def _(target: Target, kind: int) -> None:
    need_kind(target, kind)
    with target.client(kind) as client:
        for _ in range(3):
            client.ping()


@check("stat counts")
def _(target: Target) -> None:
    with target.client() as client:
        client.put(b"stat", b"x" * 100)
        found = client.stat()
        expect(found.blocks >= 1, "no block is counted after a put")
        expect(found.used_bytes <= found.usable_bytes, f"more is used than usable: {found}")
        expect(1 <= found.drives_online <= found.drives_total, f"drives do not add up: {found}")


SIZES = {
    "0 bytes": 0,
    "1 byte": 1,
    "64 KiB - 1": 64 * KIB - 1,
    "64 KiB": 64 * KIB,
    "64 KiB + 1": 64 * KIB + 1,
    "1 MiB - 1": MIB - 1,
    "1 MiB": MIB,
    "1 MiB + 1": MIB + 1,
    "5 MiB": 5 * MIB,
}


@check_each(
    "put, get, exists, lookup and delete",
    {
        f"{label}, {kind_label}": (size, kind)
        for label, size in SIZES.items()
        for kind_label, kind in KINDS.items()
    },
)
def _(target: Target, case: tuple[int, int]) -> None:
    size, kind = case
    need_kind(target, kind)
    key = f"size-{size}-{kind}".encode()
    value = target.chance(key.decode()).randbytes(size)
    with target.client(kind) as client:
        expect_equal(client.get(key), None, "get before the put")
        generation = client.put(key, value)
        found = client.get(key)
        expect(found is not None, "the block is missing after the put")
        expect_equal(found.data, value, "the value")
        expect_equal(
            (found.value_length, found.generation), (size, generation), "length and generation of get"
        )
        expect_equal(client.exists(key), page.Found(size, generation), "exists")
        expect_equal(client.lookup(key), page.Located(size, generation, page.crc32c(value), 0), "lookup")
        expect_equal(client.delete(key), True, "delete")
        expect_equal(client.delete(key), False, "second delete")
        gone = (client.get(key), client.exists(key), client.lookup(key))
        expect_equal(gone, (None, None, None), "get, exists and lookup after the delete")


@check_each("a block crosses from one digest kind to the other", {"1 to 2": (1, 2), "2 to 1": (2, 1)})
def _(target: Target, case: tuple[int, int]) -> None:
    for kind in case:
        need_kind(target, kind)
    with target.client(case[0]) as writer, target.client(case[1]) as reader:
        writer.put(b"cross", b"written with one kind")
        expect_equal(reader.get(b"cross").data, b"written with one kind", "the value")


@check_each(
    "a key may have any bytes",
    {
        "1 byte, zero": b"\0",
        "1 byte, 255": b"\xff",
        "all bytes": bytes(range(256)),
        "1024 bytes": b"k" * 1024,
    },
)
def _(target: Target, key: bytes) -> None:
    with target.client() as client:
        client.put(key, key[::-1])
        expect_equal(client.get(key).data, key[::-1], "the value")
        expect(client.exists(key) is not None, "exists does not find the block")
        if len(key) > 1:
            expect_equal(client.get(key[:-1]), None, "get of the key without its last byte")
        expect_equal(client.delete(key), True, "delete")


@check("delete has a second opcode")
def _(target: Target) -> None:
    with target.client() as client:
        client.put(b"delete", b"x")
        expect_equal(client.delete(b"delete", Opcode.Delete), True, "Delete of a block")
        expect_equal(client.delete(b"delete", Opcode.Delete), False, "Delete of a miss")


@check("an overwrite replaces the whole value")
def _(target: Target) -> None:
    with target.client() as client, target.client() as other:
        for value in (b"long " * 100_000, b"short", b"", b"again"):
            generation = client.put(b"overwrite", value)
            for reader in (client, other):
                found = reader.get(b"overwrite")
                expect_equal(
                    (found.data, found.generation), (value, generation), "the value and its generation"
                )


@check("if absent stores once")
def _(target: Target) -> None:
    with target.client() as client:
        client.delete(b"absent")
        client.put(b"absent", b"first", if_absent=True)
        expect_status(
            lambda: client.put(b"absent", b"second", if_absent=True), Status.AlreadyExists, "second put"
        )
        expect_equal(client.get(b"absent").data, b"first", "the value")
        client.delete(b"absent")
        client.put(b"absent", b"third", if_absent=True)
        expect_equal(client.get(b"absent").data, b"third", "the value after a delete")


@check("namespaces are apart")
def _(target: Target) -> None:
    names = (target.namespace, target.namespace + b".other", b"")
    clients = [target.client(namespace=name) for name in names]
    key = b"shared-" + target.namespace
    for client, name in zip(clients, names):
        expect_equal(client.get(key), None, f"get in {name!r} before its put")
        client.put(key, b"of " + name)
    for client, name in zip(clients, names):
        expect_equal(client.get(key).data, b"of " + name, f"the value in {name!r}")
    expect_equal(clients[0].delete(key), True, "delete")
    expect_equal(clients[0].exists(key), None, "exists after the delete")
    for client, name in zip(clients[1:], names[1:]):
        expect(client.exists(key) is not None, f"the delete reached into {name!r}")
        client.delete(key)
    for client in clients:
        client.close()


@check("a namespace may have 32 bytes of the whole alphabet")
def _(target: Target) -> None:
    for name in (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ.-_0", b"abcdefghijklmnopqrstuvwxyz-_.012", b"3456789." * 4):
        with target.client(namespace=name) as client:
            client.put(b"page-client", name)
            expect_equal(client.get(b"page-client").data, name, "the value")
            client.delete(b"page-client")


RANGE_BYTES = 3 * MIB + 17


@check_each("sub-ranges", KINDS)
def _(target: Target, kind: int) -> None:
    need_kind(target, kind)
    value = target.chance("range").randbytes(RANGE_BYTES)
    with target.client(kind) as client:
        client.put(b"range", value)
        cases = [
            (0, 0),
            (0, 1),
            (0, RANGE_BYTES),
            (0, RANGE_BYTES + 1),
            (0, page._MASK64),
            (1, 0),
            (1, 1),
            (4095, 2),
            (4096, 4096),
            (64 * KIB - 1, 2),
            (64 * KIB, 64 * KIB),
            (MIB - 1, 2),
            (MIB - 1, MIB + 2),
            (MIB, MIB),
            (MIB + 1, 2 * MIB),
            (RANGE_BYTES - 1, 1),
            (RANGE_BYTES - 1, 0),
            (RANGE_BYTES - 1, 100),
            (RANGE_BYTES - 1, page._MASK64),
            (RANGE_BYTES, 0),
            (RANGE_BYTES, 1),
            (RANGE_BYTES, page._MASK64),
        ]
        for offset, length in cases:
            found = client.get(b"range", offset, length)
            expected = value[offset : offset + length] if length else value[offset:]
            expect_equal(found.data, expected, f"bytes from {offset}, {length} long")
            expect_equal(
                found.value_length, RANGE_BYTES, f"value_length of bytes from {offset}, {length} long"
            )
        client.delete(b"range")


@check("a range behind the value is out of range")
def _(target: Target) -> None:
    with target.client() as client:
        for size in (0, 10):
            client.put(b"out", b"x" * size)
            for offset in (size + 1, page._MASK64):
                error = expect_status(
                    lambda: client.get(b"out", offset, 1), Status.OutOfRange, f"offset {offset}"
                )
                expect_equal(error.value_length, size, "value_length with OutOfRange")


@check("a capacity bounds the bytes that come")
def _(target: Target) -> None:
    with target.client() as client:
        client.put(b"capacity", b"0123456789")
        for capacity in (1, 9):
            error = expect_status(
                lambda: client.get(b"capacity", capacity=capacity),
                Status.BufferTooSmall,
                f"capacity {capacity}",
            )
            expect_equal(error.value_length, 10, "value_length with BufferTooSmall")
        expect_equal(client.get(b"capacity", capacity=10).data, b"0123456789", "capacity 10")
        expect_equal(client.get(b"capacity", 8, 0, 2).data, b"89", "a tail of exactly the capacity")
        expect_equal(client.get(b"capacity", 2, 4, 4).data, b"2345", "a range of exactly the capacity")
        expect_status(
            lambda: client.get(b"capacity", 2, 4, 3), Status.BufferTooSmall, "a range above the capacity"
        )
        client.put(b"capacity", b"")
        expect_equal(client.get(b"capacity", capacity=1).data, b"", "an empty value")


@check("a deadline is accepted")
def _(target: Target) -> None:
    with target.client() as client:
        for deadline_ms in (10_000, 30_000):
            client.put(b"deadline", b"x" * MIB, deadline_ms=deadline_ms)
            expect_equal(
                len(client.get(b"deadline", deadline_ms=deadline_ms).data), MIB, "the value's length"
            )


@check_each("batch put, get, exists and delete with hits and misses", KINDS)
def _(target: Target, kind: int) -> None:
    need_kind(target, kind)
    chance = target.chance("batch")
    sizes = [0, 1, 100, 64 * KIB + 1, 3 * MIB // 2, 7, MIB, 2 * MIB + 3]
    items = [PutItem(f"batch-{index}".encode(), chance.randbytes(size)) for index, size in enumerate(sizes)]
    keys = [item.key for item in items]
    with target.client(kind) as client:
        client.delete_batch(keys)
        results = client.put_batch(items)
        expect_equal([status for status, _ in results], [Status.Ok] * len(items), "the statuses of batch put")
        for key, (_, generation) in zip(keys, results):
            expect_equal(client.exists(key).generation, generation, "a generation that batch put gave")
        expect_equal(client.get(keys[4]).data, items[4].value, "a value of the batch by itself")
        asked = [GetItem(b"batch-missing")]
        expected: list[tuple[Status, bytes]] = [(Status.NotFound, b"")]
        for item in items:
            asked += [GetItem(item.key), GetItem(b"no-" + item.key)]
            expected += [(Status.Ok, item.value), (Status.NotFound, b"")]
        found = client.get_batch(asked)
        for index, (result, (status, data)) in enumerate(zip(found, expected)):
            expect_equal((result.status, result.data), (status, data), f"item {index} of batch get")
        mixed: list[bytes] = [b"no-such-key", *keys, b"nor-this"]
        hits = [(Status.Ok, size) for size in sizes]
        miss = (Status.NotFound, 0)
        expect_equal(client.exists_batch(mixed), [miss, *hits, miss], "batch exists")
        statuses = [Status.NotFound, *[Status.Ok] * len(keys), Status.NotFound]
        expect_equal(client.delete_batch(mixed), statuses, "batch delete")
        expect_equal(client.delete_batch(mixed), [Status.NotFound] * len(mixed), "batch delete again")
        misses = [(result.status, result.data) for result in client.get_batch([GetItem(key) for key in keys])]
        expect_equal(misses, [(Status.NotFound, b"")] * len(keys), "batch get after the delete")


@check_each("batch get with ranges and capacities", KINDS)
def _(target: Target, kind: int) -> None:
    need_kind(target, kind)
    value = target.chance("batch range").randbytes(2 * MIB + 5)
    size = len(value)
    with target.client(kind) as client:
        client.put(b"batch-range", value)

        def ask(*numbers: int) -> GetItem:
            return GetItem(b"batch-range", *numbers)

        cases = [
            (ask(), Status.Ok, value),
            (ask(5, 3), Status.Ok, value[5:8]),
            (ask(size), Status.Ok, b""),
            (ask(size + 1), Status.OutOfRange, b""),
            (ask(0, 0, 10), Status.BufferTooSmall, b""),
            (ask(MIB - 1, MIB + 2), Status.Ok, value[MIB - 1 : 2 * MIB + 1]),
            (ask(7, 4, 4), Status.Ok, value[7:11]),
        ]
        found = client.get_batch([case[0] for case in cases])
        for result, (item, status, data) in zip(found, cases):
            expect_equal((result.status, result.data), (status, data), str(replace(item)))


@check("batch put with if absent on some items")
def _(target: Target) -> None:
    with target.client() as client:
        client.put(b"batch-absent-0", b"old")
        client.put(b"batch-absent-1", b"old")
        client.delete(b"batch-absent-2")
        results = client.put_batch(
            [
                PutItem(b"batch-absent-0", b"new", True),
                PutItem(b"batch-absent-1", b"new"),
                PutItem(b"batch-absent-2", b"new", True),
            ]
        )
        statuses = [status for status, _ in results]
        expect_equal(statuses, [Status.AlreadyExists, Status.Ok, Status.Ok], "the statuses")
        values = [client.get(f"batch-absent-{index}".encode()).data for index in range(3)]
        expect_equal(values, [b"old", b"new", b"new"], "the values")


@check_each("batch put with one wrong digest stores the others", KINDS)
def _(target: Target, kind: int) -> None:
    need_kind(target, kind)
    with target.client(kind) as client:
        items = [PutItem(f"batch-digest-{index}".encode(), b"value %d" % index) for index in range(3)]
        client.delete_batch([item.key for item in items])
        taken = client._next_id
        digests = [
            page.payload_digest(kind, client.payload_key, DIRECTION_REQUEST, taken, 0, index, item.value)
            for index, item in enumerate(items)
        ]
        digests[1] = bytes([digests[1][0] ^ 1]) + digests[1][1:]
        statuses = [status for status, _ in client.put_batch(items, digests)]
        expect_equal(statuses, [Status.Ok, Status.DigestMismatch, Status.Ok], "the statuses")
        found = [client.exists(item.key) is not None for item in items]
        expect_equal(found, [True, False, True], "which items are stored")


@check("a batch may have 4096 items")
def _(target: Target) -> None:
    with target.client() as client:
        items = [PutItem(b"many-%04d" % index, b"%d" % index) for index in range(4096)]
        keys = [item.key for item in items]
        expect_equal(
            {status for status, _ in client.put_batch(items)}, {Status.Ok}, "the statuses of batch put"
        )
        found = client.get_batch([GetItem(key) for key in keys])
        expect_equal([result.data for result in found], [item.value for item in items], "the values")
        lengths = [(Status.Ok, len(item.value)) for item in items]
        expect_equal(client.exists_batch(keys), lengths, "batch exists")
        expect_equal(client.prefix(keys).matched, 4096, "prefix")
        expect_equal(set(client.delete_batch(keys)), {Status.Ok}, "batch delete")


@check("prefix ends at the first gap")
def _(target: Target) -> None:
    with target.client() as client:
        keys = [f"prefix-{index}".encode() for index in range(6)]
        client.delete_batch(keys)
        expect_equal(client.prefix(keys), page.PrefixMatch(0, 0, ()), "with nothing there")
        for index in (0, 1, 2, 4, 5):
            client.put(keys[index], b"x" * (index * 1000))
        expect_equal(client.prefix(keys), page.PrefixMatch(3, 3000, (0, 1000, 2000)), "with a gap at 3")
        client.put(keys[3], b"x" * 3000)
        expect_equal(client.prefix(keys).matched, 6, "with the gap filled")
        client.delete(keys[0])
        expect_equal(client.prefix(keys).matched, 0, "with a gap at 0")


@check_each("requests in flight are answered whatever the order they are waited for", KINDS)
def _(target: Target, kind: int) -> None:
    need_kind(target, kind)
    chance = target.chance("pipeline")
    with target.client(kind) as client:
        values = {b"pipe-%d" % index: chance.randbytes(chance.randrange(200 * KIB)) for index in range(20)}
        puts = [client.submit_put(key, value) for key, value in values.items()]
        for request_id in reversed(puts):
            client.finish_put(request_id)
        opened = []
        for key in list(values) * 5:
            item = GetItem(key, chance.randrange(10) if values[key] else 0)
            opened.append((item, client.submit_get(item)))
            if len(opened) % 4 == 0:
                opened.append((None, client.submit(Opcode.Ping)))
        chance.shuffle(opened)
        for item, request_id in opened:
            if item is None:
                expect_equal(client.wait(request_id).status, Status.Ok, "the status of a Ping")
            else:
                data = client.finish_get(request_id, item).data
                expect_equal(data, values[item.key][item.range_offset :], f"the value of {item.key!r}")


@check("128 requests may be in flight, and more are only delayed")
def _(target: Target) -> None:
    with target.client() as client:
        for count in (128, 400):
            opened = [client.submit(Opcode.Ping) for _ in range(count)]
            for request_id in reversed(opened):
                expect_equal(client.wait(request_id).status, Status.Ok, "the status of a Ping")


@check("request ids may have gaps")
def _(target: Target) -> None:
    with Raw(target) as raw:
        raw.ready()
        for request_id in (1000, 1 << 33, page._MASK64):
            raw.answer(raw.request(Opcode.Ping, request_id=request_id), Status.Ok)


# Refusals: what closes


@check("bad magic closes silently")
def _(target: Target) -> None:
    with Raw(target) as raw:
        raw.send(raw.seal(raw.hello_header(os.urandom(16), magic=b"MKVX")))
        raw.must_close()
    with Raw(target) as raw:
        raw.ready()
        raw.send(raw.seal(raw.header(Opcode.Ping, magic=b"HTTP")))
        raw.must_close()
    with Raw(target) as raw:
        raw.send(b"GET / HTTP/1.1\r\nHost: somebody\r\n\r\n")
        raw.must_close()


@check("a wrong MAC closes without a byte")
def _(target: Target) -> None:
    with Raw(target) as raw:
        frame = page.seal(bytes(32), raw.hello_header(os.urandom(16)).encode(), time.time_ns())
        raw.send(frame)
        raw.must_close()
    for position in (5 * 8, 128, 160, 168, 199):  # header, variable part, stamp, both ends of the MAC
        with Raw(target) as raw:
            frame = bytearray(raw.seal(raw.hello_header(os.urandom(16))))
            frame[position] ^= 1
            raw.send(bytes(frame))
            raw.must_close()
    with Raw(target) as raw:
        raw.ready()
        frame = bytearray(raw.seal(raw.header(Opcode.Ping)))
        frame[-1] ^= 1
        raw.send(bytes(frame))
        raw.must_close()


@check("a wrong MAC closes before the time is looked at")
def _(target: Target) -> None:
    with Raw(target) as raw:
        stamp = time.time_ns() - 3600 * SECOND_NS
        raw.send(page.seal(bytes(32), raw.hello_header(os.urandom(16)).encode(), stamp))
        raw.must_close()


@check_each(
    "a header length out of bounds closes before authentication",
    {"0": 0, "31": 31, "127": 127, "513": 513, "1 MiB": MIB, "4 GiB - 1": 0xFFFFFFFF},
)
def _(target: Target, length: int) -> None:
    with Raw(target) as raw:
        raw.send(raw.hello_header(os.urandom(16), header_length=length).encode()[: page.FROZEN_BYTES])
        raw.must_close()


@check("a header above 512 bytes closes between Hello and the first tagged frame")
def _(target: Target) -> None:
    with Raw(target) as raw:
        raw.hello()
        raw.request(Opcode.Exists, page.encode_key(b"k" * 377))
        raw.must_close()


@check("a header of 512 bytes is taken as the first tagged frame, and a longer one afterwards")
def _(target: Target) -> None:
    with Raw(target) as raw:
        raw.hello()
        raw.answer(raw.request(Opcode.Exists, page.encode_key(b"k" * 376)), Status.NotFound)
        raw.answer(raw.request(Opcode.Exists, page.encode_key(b"k" * 377)), Status.NotFound)


@check_each(
    "a header length out of bounds closes after authentication",
    {"0": 0, "127": 127, "1 MiB + 1": MIB + 1, "4 GiB - 1": 0xFFFFFFFF},
)
def _(target: Target, length: int) -> None:
    with Raw(target) as raw:
        raw.ready()
        raw.send(raw.header(Opcode.Ping, header_length=length).encode()[: page.FROZEN_BYTES])
        raw.must_close()


@check("a payload length above every limit closes")
def _(target: Target) -> None:
    with Raw(target) as raw:
        raw.ready()
        raw.request(Opcode.TcpPut, page.encode_key(b"huge"), payload_length=1 << 40)
        raw.must_close()


@check("the reply direction closes, and no direction too")
def _(target: Target) -> None:
    for direction in (DIRECTION_REPLY, 0, 3, 255):
        with Raw(target) as raw:
            raw.ready()
            raw.request(Opcode.Ping, direction=direction)
            raw.must_close()


@check("a wrong tag closes")
def _(target: Target) -> None:
    for tag in (TAG_ZERO, os.urandom(16)):
        with Raw(target) as raw:
            raw.ready()
            raw.request(Opcode.Ping, connection_tag=tag)
            raw.must_close()
    with Raw(target) as raw:
        raw.send(raw.seal(raw.hello_header(os.urandom(16), connection_tag=os.urandom(16))))
        raw.must_close()


@check("a first frame that is no Hello is not served")
def _(target: Target) -> None:
    with Raw(target) as raw:
        raw.request(Opcode.Ping)
        raw.must_close()


@check("a second Hello closes")
def _(target: Target) -> None:
    for own_tag in (False, True):
        with Raw(target) as raw:
            raw.ready()
            fields = {"connection_tag": raw.tag} if own_tag else {}
            raw.send(raw.seal(raw.hello_header(os.urandom(16), **fields)))
            raw.must_close()


@check("a captured Hello gains nothing on another connection")
def _(target: Target) -> None:
    with Raw(target) as victim, Raw(target) as thief:
        victim.hello()
        ping = victim.seal(victim.header(Opcode.Ping))
        victim.send(ping)
        victim.answer(victim.last_id, Status.Ok)
        thief.send(victim.hello_frame)
        answer = thief.answer(1, Status.Ok, opcode=Opcode.Hello)
        nonce = page.ServerHello.decode(answer.variable).server_nonce
        expect(nonce != victim.server_nonce, "the replayed Hello got the nonce of the first")
        thief.send(ping)
        thief.must_close()
        victim.must_go_on()


@check("a captured Hello replayed on its own connection closes it")
def _(target: Target) -> None:
    with Raw(target) as raw:
        raw.hello()
        raw.must_go_on()
        raw.send(raw.hello_frame)
        raw.must_close()


@check("a frame captured on one connection closes another")
def _(target: Target) -> None:
    with Raw(target) as victim, Raw(target) as thief:
        victim.ready()
        thief.ready()
        header = victim.header(Opcode.TcpDelete, page.encode_key(b"captured"), request_id=50)
        frame = victim.seal(header)
        with target.client() as client:
            client.put(b"captured", b"keep")
            thief.send(frame)
            thief.must_close()
            expect_equal(
                client.get(b"captured").data, b"keep", "the block that the captured frame would delete"
            )


# Refusals: what is dropped


def put_header(raw: Raw, key: bytes, payload: bytes, **fields) -> Header:
    """A put that would be served, but for the fields given."""
    return raw.header(Opcode.TcpPut, page.encode_key(key), payload, **fields)


@check_each(
    "a frame stamped too far away is dropped and its payload skipped", {"61 s old": -61, "70 s ahead": 70}
)
def _(target: Target, seconds: int) -> None:
    payload = os.urandom(300_000)
    with Raw(target) as raw:
        raw.ready()
        for _ in range(2):
            raw.send(raw.seal(put_header(raw, b"stale", payload), seconds * SECOND_NS) + payload)
            raw.must_be_silent()
            raw.must_go_on()
        raw.answer(raw.request(Opcode.Exists, page.encode_key(b"stale")), Status.NotFound)
        raw.send(raw.seal(raw.header(Opcode.Ping), seconds * SECOND_NS))
        raw.must_close()


@check("a frame stamped 55 s away is served")
def _(target: Target) -> None:
    with Raw(target) as raw:
        raw.ready()
        for seconds in (-55, 55):
            raw.answer(raw.request(Opcode.Ping, offset_ns=seconds * SECOND_NS), Status.Ok)


@check("a stale Hello is dropped, the next is served, the third drop closes")
def _(target: Target) -> None:
    with Raw(target) as raw:
        raw.send(raw.seal(raw.hello_header(os.urandom(16)), -61 * SECOND_NS))
        raw.must_be_silent()
        raw.ready()
    with Raw(target) as raw:
        for _ in range(2):
            raw.send(raw.seal(raw.hello_header(os.urandom(16)), 70 * SECOND_NS))
            raw.must_be_silent()
        raw.send(raw.seal(raw.hello_header(os.urandom(16)), 70 * SECOND_NS))
        raw.must_close()


@check("a repeated request id is dropped, with its payload, and the third drop closes")
def _(target: Target) -> None:
    payload = os.urandom(300_000)
    with Raw(target) as raw:
        raw.ready()
        frame = raw.seal(put_header(raw, b"repeated", payload, request_id=10)) + payload
        raw.send(frame)
        raw.answer(10, Status.Ok)
        raw.answer(raw.request(Opcode.TcpDelete, page.encode_key(b"repeated")), Status.Ok)
        raw.send(frame)
        raw.must_be_silent()
        raw.must_go_on()
        raw.answer(raw.request(Opcode.Exists, page.encode_key(b"repeated")), Status.NotFound)
        accepted = raw.last_id
        raw.request(Opcode.Ping, request_id=accepted)
        raw.must_be_silent()
        raw.must_go_on()
        raw.request(Opcode.Ping, request_id=0)
        raw.must_close()


# Refusals: what is answered


@check_each(
    "a higher version is answered with UnsupportedVersion and the connection ends",
    {
        "version 2": {"version": 2},
        "version 255": {"version": 255},
        "version 2 with another layout": {
            "version": 2,
            "flags": 0xFFFFFFFF,
            "digest_kind": 9,
            "namespace": b"\xff" * 32,
        },
        "version 2 with another tag": {"version": 2, "connection_tag": b"t" * 16},
    },
)
def _(target: Target, fields: dict) -> None:
    with Raw(target) as raw:
        raw.ready()
        request_id = raw.request(Opcode.TcpPut, b"\xee" * 77, b"payload", digest=b"d" * 16, **fields)
        header = raw.answer(request_id, Status.UnsupportedVersion, opcode=Opcode.TcpPut, tag=TAG_ZERO)
        expect_equal(header.header_length, page.FIXED_BYTES, "the header length of the answer")
        raw.must_close()


@check("a higher version as the first frame is answered with UnsupportedVersion and the connection ends")
def _(target: Target) -> None:
    with Raw(target) as raw:
        request_id = raw.request(Opcode.Ping, version=2)
        raw.answer(request_id, Status.UnsupportedVersion, opcode=Opcode.Ping, tag=TAG_ZERO)
        raw.must_close()


@check("a higher version with a wrong MAC closes without a byte")
def _(target: Target) -> None:
    with Raw(target) as raw:
        raw.ready()
        raw.send(page.seal(bytes(32), raw.header(Opcode.Ping, version=2).encode(), time.time_ns()))
        raw.must_close()


@check("a higher version with a stale stamp is dropped")
def _(target: Target) -> None:
    with Raw(target) as raw:
        raw.ready()
        raw.request(Opcode.Ping, version=2, offset_ns=-61 * SECOND_NS)
        raw.must_be_silent()
        raw.must_go_on()


@check_each(
    "a malformed Hello is refused with the client's nonce and the connection ends",
    {
        "highest version 0": {"variable_at": 16, "byte": 0},
        "a zero byte that is not": {"variable_at": 20, "byte": 1},
        "an unknown flag": {"flags": 1 << 7},
        "a status": {"status": 1},
    },
)
def _(target: Target, case: dict) -> None:
    fields = dict(case)
    with Raw(target) as raw:
        nonce = os.urandom(16)
        variable = bytearray(page.encode_hello(nonce))
        if "variable_at" in fields:
            variable[fields.pop("variable_at")] = fields.pop("byte")
        raw.send(raw.seal(raw.hello_header(nonce, variable=bytes(variable), **fields)))
        header = raw.answer(1, Status.BadRequest, opcode=Opcode.Hello)
        expect_equal(header.variable, nonce, "the variable part of a refused Hello")
        raw.must_close()


def must_refuse_and_go_on(
    target: Target, statuses: Sequence[Status], opcode: int, variable: bytes, payload: bytes, **fields
) -> None:
    """One request is refused, its payload skipped, and the connection serves the next ones."""
    with Raw(target) as raw:
        raw.ready()
        for _ in range(2):
            raw.answer(raw.request(opcode, variable, payload, **fields), *statuses, opcode=opcode)
            raw.must_go_on()
        raw.answer(raw.request(Opcode.Exists, page.encode_key(b"refused")), Status.NotFound)


KEY = page.encode_key(b"refused")


@check_each(
    "an unknown opcode is Unsupported, its payload skipped",
    {f"0x{code:02X}": code for code in (0x00, 0x11, 0x1F, 0x27, 0x80, 0xFF)},
)
def _(target: Target, opcode: int) -> None:
    must_refuse_and_go_on(target, (Status.Unsupported,), opcode, KEY, os.urandom(100_000))


@check_each("an opcode that needs RDMA is Unsupported", {opcode.name: opcode for opcode in page.RDMA_OPCODES})
def _(target: Target, opcode: int) -> None:
    if target.capabilities & page.CAPABILITY_RDMA:
        raise CheckSkipped("the server has RDMA")
    must_refuse_and_go_on(target, (Status.Unsupported,), opcode, b"", b"")


WRITE_ITEM = page.WriteItem(b"by RDMA", 7, 0x10000, 100, b"\1\2\3\4" + bytes(12))
READ_ITEM = page.ReadItem(b"by RDMA", 7, 0x10000, 100)


@check_each(
    "a whole message that needs RDMA is Unsupported without it",
    {
        "TcpAttach": (Opcode.TcpAttach, page.encode_attach(0, page.RdmaAddress())),
        "TcpDetach": (Opcode.TcpDetach, page.encode_session(1)),
        "BatchWrite": (Opcode.BatchWrite, page.encode_session_batch(1, [WRITE_ITEM])),
        "BatchRead": (Opcode.BatchRead, page.encode_session_batch(1, [READ_ITEM])),
    },
)
def _(target: Target, message: tuple[int, bytes]) -> None:
    if target.capabilities & page.CAPABILITY_RDMA:
        raise CheckSkipped("the server has RDMA")
    must_refuse_and_go_on(target, (Status.Unsupported,), message[0], message[1], b"")


@check_each(
    "a message that names no session of its connection is refused",
    {
        "TcpDetach": (Status.NotFound, Opcode.TcpDetach, page.encode_session(1)),
        "BatchWrite": (Status.SessionEnded, Opcode.BatchWrite, page.encode_session_batch(1, [WRITE_ITEM])),
        "BatchRead": (Status.SessionEnded, Opcode.BatchRead, page.encode_session_batch(1, [READ_ITEM])),
    },
)
def _(target: Target, message: tuple[Status, int, bytes]) -> None:
    if not target.capabilities & page.CAPABILITY_RDMA:
        raise CheckSkipped("the server has no RDMA")
    must_refuse_and_go_on(target, message[:1], message[1], message[2], b"")


@check_each(
    "a malformed message about RDMA is a BadRequest",
    {
        "an MTU that is none": (
            Opcode.TcpAttach,
            page.encode_attach(0, page.RdmaAddress(path_mtu=1000)),
        ),
        "a kind that is none": (Opcode.TcpAttach, page.encode_attach(0, page.RdmaAddress(kind=3))),
        "a number of 25 bits": (Opcode.TcpAttach, page.encode_attach(0, page.RdmaAddress(number=1 << 24))),
        "RC with the key of a target": (Opcode.TcpAttach, page.encode_attach(0, page.RdmaAddress(dc_key=1))),
        "a range that wraps around": (
            Opcode.BatchWrite,
            page.encode_session_batch(1, [replace(WRITE_ITEM, address=2**64 - 50)]),
        ),
        "room that wraps around": (
            Opcode.BatchRead,
            page.encode_session_batch(1, [replace(READ_ITEM, address=2**64 - 50)]),
        ),
        "a digest of nothing": (
            Opcode.BatchWrite,
            page.encode_session_batch(1, [replace(WRITE_ITEM, value_length=0)]),
        ),
        "no items": (Opcode.BatchRead, page.encode_session_batch(1, [])),
        "bytes behind the last item": (
            Opcode.BatchWrite,
            page.encode_session_batch(1, [WRITE_ITEM]) + b"\0",
        ),
    },
)
def _(target: Target, message: tuple[int, bytes]) -> None:
    if not target.capabilities & page.CAPABILITY_RDMA:
        raise CheckSkipped("the server has no RDMA")
    must_refuse_and_go_on(target, (Status.BadRequest,), message[0], message[1], b"")


@check_each(
    "a malformed header is a BadRequest, its payload skipped",
    {
        "unknown flag, bit 2": {"flags": 1 << 2},
        "unknown flag, bit 31": {"flags": 1 << 31},
        "zero at 12": {"zero_frozen": 1},
        "zero at 89": {"zero_digest": b"\1\0\0"},
        "zero at 91": {"zero_digest": b"\0\0\1"},
        "version 0": {"version": 0},
        "a status": {"status": 1},
        "a part number": {"part_number": 1},
        "a value length": {"value_length": 1},
        "a value offset": {"value_offset": 1},
        "digest kind 0": {"digest_kind": 0},
        "digest kind 3": {"digest_kind": 3},
        "namespace with a slash": {"namespace": b"a/b"},
        "namespace with a high byte": {"namespace": b"\xc3\xa4"},
        "namespace with a zero inside": {"namespace": b"a\0b"},
        "namespace that begins with zero": {"namespace": b"\0a"},
    },
)
def _(target: Target, fields: dict) -> None:
    must_refuse_and_go_on(target, (Status.BadRequest,), Opcode.TcpPut, KEY, os.urandom(100_000), **fields)


def batch(count: int, *pieces: bytes, zero: int = 0) -> bytes:
    """A batch's variable part that may lie about its count."""
    return struct.pack("<II", count, zero) + b"".join(pieces)


LISTED = struct.pack("<H", 7) + b"refused"
PUT_ITEM = struct.pack("<HBBI16s", 7, 0, 0, 0, bytes(16)) + b"refused"


@check_each(
    "a malformed variable part is a BadRequest",
    {
        "put: nothing": (Opcode.TcpPut, b""),
        "put: no key bytes": (Opcode.TcpPut, KEY[:8]),
        "put: a byte missing": (Opcode.TcpPut, KEY[:-1]),
        "put: a byte left over": (Opcode.TcpPut, KEY + b"x"),
        "put: reserved": (Opcode.TcpPut, KEY[:2] + b"\1" + KEY[3:]),
        "put: empty key": (Opcode.TcpPut, bytes(8)),
        "exists: a byte left over": (Opcode.Exists, KEY + b"x"),
        "lookup: nothing": (Opcode.Lookup, b""),
        "delete: reserved": (Opcode.TcpDelete, KEY[:7] + b"\1" + KEY[8:]),
        "get: nothing": (Opcode.TcpGet, b""),
        "get: a key's layout": (Opcode.TcpGet, KEY),
        "get: a byte left over": (Opcode.TcpGet, GetItem(b"refused").encode() + b"x"),
        "get: reserved": (Opcode.TcpGet, b"\7\0\1" + GetItem(b"refused").encode()[3:]),
        "get: empty key": (Opcode.TcpGet, bytes(32)),
        "ping: a byte": (Opcode.Ping, b"x"),
        "stat: a byte": (Opcode.Stat, b"x"),
        "batch exists: nothing": (Opcode.BatchExists, b""),
        "batch exists: an item missing": (Opcode.BatchExists, batch(2, LISTED)),
        "batch exists: an item left over": (Opcode.BatchExists, batch(1, LISTED, LISTED)),
        "batch exists: reserved": (Opcode.BatchExists, batch(1, LISTED, zero=1)),
        "batch exists: an empty key": (Opcode.BatchExists, batch(1, b"\0\0")),
        "batch delete: a huge count": (Opcode.TcpBatchDelete, batch(4096, LISTED)),
        "prefix: a cut item": (Opcode.Prefix, batch(1, LISTED[:-1])),
        "batch get: a cut item": (Opcode.TcpBatchGet, batch(1, GetItem(b"refused").encode()[:-1])),
        "batch get: a byte left over": (Opcode.TcpBatchGet, batch(1, GetItem(b"refused").encode(), b"x")),
        "batch put: an unknown item flag": (
            Opcode.TcpBatchPut,
            batch(1, PUT_ITEM[:2] + b"\2" + PUT_ITEM[3:]),
        ),
        "batch put: reserved": (Opcode.TcpBatchPut, batch(1, PUT_ITEM[:3] + b"\1" + PUT_ITEM[4:])),
        "batch put: more values than payload": (
            Opcode.TcpBatchPut,
            batch(1, PUT_ITEM[:4] + b"\5" + PUT_ITEM[5:]),
        ),
    },
)
def _(target: Target, case: tuple[int, bytes]) -> None:
    must_refuse_and_go_on(target, (Status.BadRequest,), case[0], case[1], b"")


@check("a batch put with more payload than values is a BadRequest, its payload skipped")
def _(target: Target) -> None:
    must_refuse_and_go_on(
        target,
        (Status.BadRequest,),
        Opcode.TcpBatchPut,
        batch(1, PUT_ITEM),
        os.urandom(70_000),
        digest=bytes(16),
    )


@check("a payload where the message has none is a BadRequest, its payload skipped")
def _(target: Target) -> None:
    must_refuse_and_go_on(target, (Status.BadRequest,), Opcode.Ping, b"", os.urandom(70_000))
    must_refuse_and_go_on(target, (Status.BadRequest,), Opcode.Exists, KEY, os.urandom(70_000))


@check("a digest without a payload is refused")
def _(target: Target) -> None:
    statuses = (Status.BadRequest, Status.DigestMismatch)
    must_refuse_and_go_on(target, statuses, Opcode.Exists, KEY, b"", digest=b"d" * 16)
    must_refuse_and_go_on(target, statuses, Opcode.TcpPut, KEY, b"", digest=b"d" * 16)


@check("a key of 1025 bytes is TooLarge")
def _(target: Target) -> None:
    statuses = (Status.TooLarge,)
    must_refuse_and_go_on(target, statuses, Opcode.TcpPut, page.encode_key(b"k" * 1025), b"value")
    must_refuse_and_go_on(target, statuses, Opcode.TcpGet, GetItem(b"k" * 1025).encode(), b"")


@check("a batch of 4097 items is TooLarge")
def _(target: Target) -> None:
    statuses = (Status.TooLarge,)
    must_refuse_and_go_on(
        target, statuses, Opcode.BatchExists, page.encode_key_list([b"refused"] * 4097), b""
    )


@check("a batch without items is refused")
def _(target: Target) -> None:
    statuses = (Status.BadRequest, Status.TooLarge)
    must_refuse_and_go_on(target, statuses, Opcode.BatchExists, batch(0), b"")


@check_each(
    "the flag IF_ABSENT is a BadRequest outside TcpPut",
    {
        "ping": (Opcode.Ping, b""),
        "exists": (Opcode.Exists, KEY),
        "get": (Opcode.TcpGet, GetItem(b"refused").encode()),
        "batch put": (Opcode.TcpBatchPut, batch(1, PUT_ITEM)),
    },
)
def _(target: Target, case: tuple[int, bytes]) -> None:
    must_refuse_and_go_on(target, (Status.BadRequest,), case[0], case[1], b"", flags=page.FLAG_IF_ABSENT)


@check("a value above the announced limit is refused")
def _(target: Target) -> None:
    if target.value_bytes_max > 64 * MIB:
        raise CheckSkipped(f"the server takes values of {target.value_bytes_max} bytes")
    must_refuse_and_go_on(target, (Status.TooLarge,), Opcode.TcpPut, KEY, bytes(target.value_bytes_max + 1))


@check_each("a wrong payload digest is a DigestMismatch and nothing is stored", KINDS)
def _(target: Target, kind: int) -> None:
    need_kind(target, kind)
    payload = os.urandom(100_000)
    key = page.encode_key(b"digest")
    with target.client(kind) as client, Raw(target) as raw:
        client.delete(b"digest")
        raw.ready()
        right = page.payload_digest(kind, raw.payload_key, DIRECTION_REQUEST, raw.last_id + 1, 0, 0, payload)
        wrong_digests = [
            bytes([right[0] ^ 1]) + right[1:],
            right[:3] + bytes([right[3] ^ 0x80]) + right[4:],
            bytes(16),
        ]
        if kind == DIGEST_KEYED:
            # Another id, another direction, another part and another connection's key: each is in the digest.
            wrong_digests += [
                page.payload_digest(kind, raw.payload_key, DIRECTION_REPLY, raw.last_id + 4, 0, 0, payload),
                page.payload_digest(
                    kind, client.payload_key, DIRECTION_REQUEST, raw.last_id + 5, 0, 0, payload
                ),
                page.payload_digest(kind, raw.payload_key, DIRECTION_REQUEST, raw.last_id + 5, 0, 0, payload),
            ]
        for digest in wrong_digests:
            request_id = raw.request(Opcode.TcpPut, key, payload, digest_kind=kind, digest=digest)
            raw.answer(request_id, Status.DigestMismatch, opcode=Opcode.TcpPut)
            expect_equal(client.get(b"digest"), None, "get after the refused put")
        client.put(b"digest", b"before")
        raw.request(Opcode.TcpPut, key, payload, digest_kind=kind, digest=bytes(16))
        raw.answer(raw.last_id, Status.DigestMismatch)
        expect_equal(client.get(b"digest").data, b"before", "the value after a refused overwrite")
        raw.must_go_on()


@check("a CRC32C digest with bytes behind the CRC is refused")
def _(target: Target) -> None:
    need_kind(target, DIGEST_CRC32C)
    digest = struct.pack("<I", page.crc32c(b"value")) + b"\1" + bytes(11)
    must_refuse_and_go_on(
        target,
        (Status.BadRequest, Status.DigestMismatch),
        Opcode.TcpPut,
        KEY,
        b"value",
        digest=digest,
        digest_kind=DIGEST_CRC32C,
    )


@check("kind 1 is refused where keyed digests are required")
def _(target: Target) -> None:
    if not target.capabilities & page.CAPABILITY_KEYED_REQUIRED:
        raise CheckSkipped("the server does not require keyed digests")
    statuses = (Status.KeyedDigestRequired,)
    must_refuse_and_go_on(target, statuses, Opcode.TcpPut, KEY, b"value", digest_kind=DIGEST_CRC32C)
    must_refuse_and_go_on(
        target, statuses, Opcode.TcpGet, GetItem(b"refused").encode(), b"", digest_kind=DIGEST_CRC32C
    )


@check("a put that its connection leaves unfinished is never stored")
def _(target: Target) -> None:
    with target.client() as client:
        client.put(b"unfinished", b"before")
        payload = os.urandom(200_000)
        with Raw(target) as raw:
            raw.ready()
            raw.send(raw.seal(put_header(raw, b"unfinished", payload)) + payload[:-1])
        time.sleep(SILENCE_S)
        expect_equal(client.get(b"unfinished").data, b"before", "the value")


@check("silence closes: no Hello, no tagged frame after it, half a header")
def _(target: Target) -> None:
    with Raw(target) as mute, Raw(target) as idle, Raw(target) as half:
        idle.hello()
        half.ready()
        half.send(half.seal(half.header(Opcode.Ping))[:100])
        time.sleep(page.HANDSHAKE_MS_MAX / 1000 - 2)
        for raw in (mute, idle, half):
            raw.must_be_silent()
        for raw in (mute, idle, half):
            raw.must_close(6)


def run_server(host: str, port: int, shared_key: bytes, wanted: Sequence[str]) -> int:
    """All checks, or those whose names contain one of the texts wanted, against a server."""
    seed = int(os.environ.get("MEMKV_TEST_SEED") or time.time_ns() & 0xFFFFFFFF)
    print(f"seed {seed} (set MEMKV_TEST_SEED to repeat the values)")
    try:
        with Client(host, port, shared_key, digest_kind=DIGEST_KEYED) as client:
            server = client.server
    except page.MemkvError as error:
        print(f"FAIL  connect: {error}")
        print("0 passed, 1 failed")
        return 1
    target = Target(
        host,
        port,
        shared_key,
        b"page-" + os.urandom(6).hex().encode(),
        seed,
        server.capabilities,
        server.value_bytes_max,
    )
    chosen = [
        (name, lambda function=function: function(target))
        for name, function in CHECKS
        if not wanted or any(text in name for text in wanted)
    ]
    return run_all(chosen)


def main(arguments: Sequence[str]) -> int:
    """The command line; 2 means that it was not understood."""
    if list(arguments) == ["vectors"]:
        return run_vectors()
    if len(arguments) >= 4 and arguments[0] == "server":
        try:
            port, shared_key = int(arguments[2]), bytes.fromhex(arguments[3])
        except ValueError:
            port, shared_key = 0, b""
        if 0 < port < 65536 and len(shared_key) == 32:
            return run_server(arguments[1], port, shared_key, arguments[4:])
        print("PORT is 1 to 65535 and KEYHEX is 64 hexadecimal digits", file=sys.stderr)
        return 2
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
