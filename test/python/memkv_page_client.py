"""A client of the wire protocol, written from docs/formats/wire.md alone, with the standard library only.

It exists to prove that the page is complete: everything here follows from the page, nothing from the
server's sources. It is strict rather than fast: a reply that differs from the page in any way ends the
connection.

Threading: one thread per client. Sockets block; a client that pipelines more than the sockets hold while it
does not read can wait for itself, so keep what is sent ahead of reading small, or read in between.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import hmac
import ipaddress
import os
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

MAGIC = b"MKVF"
VERSION = 1
FIXED_BYTES = 128
FROZEN_BYTES = 32
TRAILER_BYTES = 40
NONCE_BYTES = 16
TAG_ZERO = bytes(16)
DIGEST_ZERO = bytes(16)

DIRECTION_REQUEST = 1
DIRECTION_REPLY = 2
FLAG_LAST = 1
FLAG_IF_ABSENT = 2
DIGEST_CRC32C = 1
DIGEST_KEYED = 2
CAPABILITY_KEYED_REQUIRED = 1
CAPABILITY_RDMA = 2

KEY_BYTES_MAX = 1024
NAMESPACE_BYTES_MAX = 32
HEADER_BYTES_MAX_UNAUTHENTICATED = 512
HEADER_BYTES_MAX = 1 << 20
VALUE_BYTES_MAX = 1 << 30
BATCH_ITEMS_MAX = 4096
BATCH_PAYLOAD_BYTES_MAX = 64 << 20
PART_BYTES_MAX = 1 << 20
FRAMES_IN_FLIGHT_MAX = 128
SESSIONS_CONNECTION_MAX = 16
DRIFT_NS_MAX = 60 * 10**9
DROPS_MAX = 3
REQUEST_MS_MAX = 30_000
HANDSHAKE_MS_MAX = 5_000
HEADER_MS_MAX = 5_000
WRITE_MS_MAX = 30_000
IDLE_TIMEOUT_MS = 300_000

NAMESPACE_ALPHABET = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")

_FIXED = struct.Struct("<4sBBBBIIQQII16s32sB3sI16sQQ")
assert _FIXED.size == FIXED_BYTES


class Opcode(enum.IntEnum):
    """The messages of section 10, by their names there."""

    Hello = 0x01
    Allocate = 0x02
    Lookup = 0x03
    Commit = 0x04
    Delete = 0x05
    Connect = 0x06
    Read = 0x07
    Write = 0x08
    BatchRead = 0x09
    BatchWrite = 0x0A
    Exists = 0x0B
    TcpAttach = 0x0C
    TcpDetach = 0x0D
    Prefix = 0x0E
    Ping = 0x0F
    Stat = 0x10
    TcpPut = 0x20
    TcpGet = 0x21
    TcpDelete = 0x22
    TcpBatchPut = 0x23
    TcpBatchGet = 0x24
    TcpBatchDelete = 0x25
    BatchExists = 0x26


RDMA_OPCODES = (
    Opcode.Allocate,
    Opcode.Commit,
    Opcode.Connect,
    Opcode.Read,
    Opcode.Write,
    Opcode.BatchRead,
    Opcode.BatchWrite,
    Opcode.TcpAttach,
    Opcode.TcpDetach,
)


class Status(enum.IntEnum):
    """The status codes of section 11, by their names there."""

    Ok = 0
    NotFound = 1
    AlreadyExists = 2
    NoSpace = 3
    DeadlineExceeded = 4
    Busy = 5
    Unavailable = 6
    BadRequest = 7
    TooLarge = 8
    Unsupported = 9
    UnsupportedVersion = 10
    DigestMismatch = 11
    OutOfRange = 12
    BufferTooSmall = 13
    Corrupt = 14
    ShuttingDown = 15
    KeyedDigestRequired = 16
    Internal = 17
    MemoryRefused = 18
    SessionEnded = 19


def status_of(code: int) -> Status:
    """The status of a code; a code that the page does not list is to be treated as Internal."""
    try:
        return Status(code)
    except ValueError:
        return Status.Internal


class MemkvError(Exception):
    """The base of everything this module raises on purpose."""


class ConnectionLost(MemkvError):
    """The connection ended or could not be made; open requests are lost (section 13)."""


class ProtocolError(ConnectionLost):
    """A reply failed a check of the page; the connection was closed: nothing after it can be trusted."""


class StatusError(MemkvError):
    """The server answered with a status that the operation has no ordinary result for."""

    def __init__(self, operation: str, status: Status, value_length: int = 0) -> None:
        super().__init__(f"{operation} was answered with {status.name} ({int(status)})")
        self.status = status
        self.value_length = value_length


# CRC32C

_CRC_POLYNOMIAL_REFLECTED = 0x82F63B78


def _make_crc_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_CRC_POLYNOMIAL_REFLECTED if crc & 1 else 0)
        table.append(crc)
    return table


_CRC_TABLE = _make_crc_table()


@functools.lru_cache(maxsize=64)
def _power_exponents(degree: int) -> tuple[int, ...]:
    """The exponents j of the terms of x^degree mod P, for folding.

    Reflected registers hold the coefficient of x^j in bit 31 - j. Square and multiply over 32-bit registers.
    """

    def multiply(left: int, right: int) -> int:
        product = 0
        for exponent in range(32):
            if left >> (31 - exponent) & 1:
                product ^= right
            right = (right >> 1) ^ (_CRC_POLYNOMIAL_REFLECTED if right & 1 else 0)
        return product

    result, base = 1 << 31, 1 << 30  # 1 and x
    while degree:
        if degree & 1:
            result = multiply(result, base)
        base = multiply(base, base)
        degree >>= 1
    return tuple(exponent for exponent in range(32) if result >> (31 - exponent) & 1)


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """The CRC32C of section 1.

    A loop over bytes manages a few MiB a second. Instead the message is one big integer over GF(2) and its
    first half is folded onto its second: A * x^s + B has the same remainder as A * (x^s mod P) + B. That is
    about 16 shifts and XORs of half the message, which the interpreter does at memory speed, and each fold
    halves what is left. The lengths kept are 2^n + 64 bits so that the powers of x can be cached.
    """
    bits = 8 * len(data) + 32  # a CRC is the remainder of the message times x^32
    message = int.from_bytes(data, "little") ^ 0xFFFFFFFF
    while bits > 1024:
        kept = (1 << max(8, ((bits + 31 + 1) // 2 - 64 - 1).bit_length())) + 64
        folded = bits - kept
        head = message & ((1 << folded) - 1)
        message >>= folded
        slack = kept - folded
        for exponent in _power_exponents(kept):
            message ^= head << (slack - exponent)
        bits = kept
    crc = 0
    body = bits - 32
    for byte in (message & ((1 << body) - 1)).to_bytes(body // 8, "little"):
        crc = (crc >> 8) ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ (message >> body) ^ 0xFFFFFFFF


# Keys, namespaces, placement


def hmac_sha256(key: bytes, *pieces: bytes | memoryview) -> bytes:
    """HMAC-SHA256 over the pieces one after the other, without joining them first."""
    mac = hmac.new(key, digestmod=hashlib.sha256)
    for piece in pieces:
        mac.update(piece)
    return mac.digest()


def check_namespace(namespace: bytes) -> bytes:
    """The namespace if the page allows it, else ValueError: a server would only answer BadRequest."""
    if len(namespace) > NAMESPACE_BYTES_MAX or not NAMESPACE_ALPHABET.issuperset(namespace):
        raise ValueError("a namespace is 0 to 32 bytes of A-Z a-z 0-9 . _ -")
    return namespace


def check_key(key: bytes) -> bytes:
    """The key if the page allows its length, else ValueError."""
    if not 1 <= len(key) <= KEY_BYTES_MAX:
        raise ValueError("a key is 1 to 1024 bytes")
    return key


def key_id(namespace: bytes, key: bytes) -> bytes:
    """The 16-byte key id of section 12."""
    return hashlib.sha256(bytes([len(namespace)]) + namespace + key).digest()[:16]


def _shortest_ipv6(text: str) -> str:
    """The form of RFC 5952, but never with an IPv4 address at its end as Python 3.13 writes it."""
    if "%" in text:
        raise ValueError(f"{text!r} has a zone, which means nothing on another machine")
    packed = ipaddress.IPv6Address(text).packed
    groups = [f"{group:x}" for group in struct.unpack(">8H", packed)]
    best_begin, best_length = 0, 1  # a single zero group is not shortened
    for begin in range(8):
        length = 0
        while begin + length < 8 and groups[begin + length] == "0":
            length += 1
        if length > best_length:
            best_begin, best_length = begin, length
    if best_length == 1:
        return ":".join(groups)
    return ":".join(groups[:best_begin]) + "::" + ":".join(groups[best_begin + best_length :])


def normalise_server(server: str) -> str:
    """The `host:port` text of section 15; raises ValueError for what is no server."""
    text = server.strip()
    port_text = "9900"
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{server!r} is not [address]:port")
        port_text = rest[1:] if rest else port_text
    elif text.count(":") > 1:
        host = text
    else:
        host, colon, rest = text.partition(":")
        port_text = rest if colon else port_text
    if not (port_text.isascii() and port_text.isdigit() and 1 <= int(port_text) <= 65535):
        raise ValueError(f"{server!r} has no port between 1 and 65535")
    if ":" in host:
        host = f"[{_shortest_ipv6(host)}]"
    elif text.startswith("["):
        raise ValueError(f"{server!r} has brackets around what is no IPv6 address")
    else:
        host = host.lower().removesuffix(".")
        if not host:
            raise ValueError(f"{server!r} has no host")
        if host.rpartition(".")[2].isdigit():
            host = str(ipaddress.IPv4Address(host))
    return f"{host}:{int(port_text)}"


_MASK64 = (1 << 64) - 1


def _mix(x: int) -> int:
    x ^= x >> 30
    x = x * 0xBF58476D1CE4E5B9 & _MASK64
    x ^= x >> 27
    x = x * 0x94D049BB133111EB & _MASK64
    return x ^ x >> 31


def server_seed(normalised: str) -> int:
    """seed(server) of section 15, for a server that is normalised already."""
    return int.from_bytes(hashlib.sha256(normalised.encode()).digest()[:8], "little")


def placement_score(normalised: str, identity: bytes) -> int:
    """The score of section 15 of one server for one key id."""
    return _mix(server_seed(normalised) ^ int.from_bytes(identity[:8], "little"))


def place(servers: Iterable[str], namespace: bytes, key: bytes) -> str:
    """The normalised server of the key: the highest score wins, then the text that sorts first."""
    identity = key_id(namespace, key)
    candidates = sorted({normalise_server(server) for server in servers})
    if not candidates:
        raise ValueError("no servers to place a key on")
    return max(candidates, key=lambda candidate: placement_score(candidate, identity))


# Frames


@dataclass
class Header:
    """The fixed part of a header, field by field, and the variable part behind it.

    Everything can be set, also what the page forbids: the tests of refusals build their frames with it.
    header_length None means: as long as the frame really is.
    """

    opcode: int
    request_id: int
    variable: bytes = b""
    payload_length: int = 0
    magic: bytes = MAGIC
    version: int = VERSION
    direction: int = DIRECTION_REQUEST
    status: int = 0
    header_length: int | None = None
    zero_frozen: int = 0
    flags: int = 0
    deadline_ms: int = 0
    connection_tag: bytes = TAG_ZERO
    namespace: bytes = b""
    digest_kind: int = DIGEST_CRC32C
    zero_digest: bytes = bytes(3)
    part_number: int = 0
    digest: bytes = DIGEST_ZERO
    value_length: int = 0
    value_offset: int = 0

    def encode(self) -> bytes:
        """All bytes of the header, without the trailer."""
        length = FIXED_BYTES + len(self.variable) if self.header_length is None else self.header_length
        return (
            _FIXED.pack(
                self.magic,
                self.version,
                self.direction,
                self.opcode,
                self.status,
                length,
                self.zero_frozen,
                self.payload_length,
                self.request_id,
                self.flags,
                self.deadline_ms,
                self.connection_tag,
                self.namespace,
                self.digest_kind,
                self.zero_digest,
                self.part_number,
                self.digest,
                self.value_length,
                self.value_offset,
            )
            + self.variable
        )

    @staticmethod
    def decode(data: bytes) -> Header:
        """The reverse of encode; the namespace keeps its filling, because a receiver has to judge it."""
        (
            magic,
            version,
            direction,
            opcode,
            status,
            length,
            zero_frozen,
            payload_length,
            request_id,
            flags,
            deadline_ms,
            tag,
            namespace,
            digest_kind,
            zero_digest,
            part_number,
            digest,
            value_length,
            value_offset,
        ) = _FIXED.unpack_from(data)
        return Header(
            opcode=opcode,
            request_id=request_id,
            variable=data[FIXED_BYTES:],
            payload_length=payload_length,
            magic=magic,
            version=version,
            direction=direction,
            status=status,
            header_length=length,
            zero_frozen=zero_frozen,
            flags=flags,
            deadline_ms=deadline_ms,
            connection_tag=tag,
            namespace=namespace,
            digest_kind=digest_kind,
            zero_digest=zero_digest,
            part_number=part_number,
            digest=digest,
            value_length=value_length,
            value_offset=value_offset,
        )


def seal(shared_key: bytes, header: bytes, ts_ns: int) -> bytes:
    """Header and trailer of a frame, ready to be followed by its payload."""
    stamp = struct.pack("<Q", ts_ns)
    return header + stamp + hmac_sha256(shared_key, header, stamp)


def trailer_is_authentic(shared_key: bytes, header: bytes, trailer: bytes) -> bool:
    """Whether the MAC of section 4 holds, compared in constant time."""
    return hmac.compare_digest(hmac_sha256(shared_key, header, trailer[:8]), trailer[8:])


def derive(shared_key: bytes, label: bytes, version: int, client_nonce: bytes, server_nonce: bytes) -> bytes:
    """The 32 bytes that section 6 derives under a label."""
    return hmac_sha256(shared_key, label, bytes([version]), client_nonce, server_nonce)


def derive_connection_tag(shared_key: bytes, version: int, client_nonce: bytes, server_nonce: bytes) -> bytes:
    """The connection tag of section 6."""
    return derive(shared_key, b"memkv connection tag", version, client_nonce, server_nonce)[:16]


def derive_payload_key(shared_key: bytes, version: int, client_nonce: bytes, server_nonce: bytes) -> bytes:
    """The payload key of section 6."""
    return derive(shared_key, b"memkv payload key", version, client_nonce, server_nonce)


def payload_digest(
    kind: int,
    payload_key: bytes,
    direction: int,
    request_id: int,
    part_number: int,
    item: int,
    data: bytes | memoryview,
) -> bytes:
    """The digest of section 8; zero for nothing."""
    if len(data) == 0:
        return DIGEST_ZERO
    if kind == DIGEST_CRC32C:
        return struct.pack("<I12x", crc32c(data))
    if kind == DIGEST_KEYED:
        place_in_reply = struct.pack("<BQII", direction, request_id, part_number, item)
        return hmac_sha256(payload_key, place_in_reply, data)[:16]
    raise ValueError(f"there is no digest kind {kind}")


# Variable parts


def encode_hello(client_nonce: bytes, highest_version: int = VERSION, capabilities: int = 0) -> bytes:
    """The variable part of a Hello request."""
    return struct.pack("<16sB7xQ", client_nonce, highest_version, capabilities)


def encode_key(key: bytes) -> bytes:
    """The *key* of section 10: Lookup, Exists, Delete, TcpPut and TcpDelete."""
    return struct.pack("<H6x", len(key)) + key


@dataclass(frozen=True)
class GetItem:
    """What one get asks for; a length of 0 is to the end, a capacity of 0 any number of bytes."""

    key: bytes
    range_offset: int = 0
    range_length: int = 0
    capacity: int = 0

    def encode(self) -> bytes:
        """The variable part of TcpGet, which is an item of TcpBatchGet too."""
        return (
            struct.pack("<H6xQQQ", len(self.key), self.range_offset, self.range_length, self.capacity)
            + self.key
        )

    def bytes_expected(self, value_length: int) -> int:
        """How many bytes an Ok answer about a value of that length brings."""
        rest = value_length - self.range_offset
        return min(rest, self.range_length) if self.range_length else rest


@dataclass(frozen=True)
class PutItem:
    """One item of a batch put."""

    key: bytes
    value: bytes
    if_absent: bool = False


def encode_key_list(keys: Sequence[bytes]) -> bytes:
    """The variable part of TcpBatchDelete, BatchExists and Prefix."""
    pieces = [struct.pack("<I4x", len(keys))]
    pieces += [struct.pack("<H", len(key)) + key for key in keys]
    return b"".join(pieces)


def encode_put_items(items: Sequence[PutItem], digests: Sequence[bytes]) -> bytes:
    """The variable part of TcpBatchPut."""
    pieces = [struct.pack("<I4x", len(items))]
    for item, digest in zip(items, digests, strict=True):
        flags = 1 if item.if_absent else 0
        pieces.append(struct.pack("<HBxI16s", len(item.key), flags, len(item.value), digest) + item.key)
    return b"".join(pieces)


def encode_get_items(items: Sequence[GetItem]) -> bytes:
    """The variable part of TcpBatchGet."""
    return struct.pack("<I4x", len(items)) + b"".join(item.encode() for item in items)


RDMA_RC = 1
RDMA_DC = 2


@dataclass(frozen=True)
class RdmaAddress:
    """The address of a queue pair or a DC target, section 17."""

    kind: int = RDMA_RC
    path_mtu: int = 1024
    gid: bytes = bytes(16)
    lid: int = 0
    number: int = 1
    packet_number: int = 0
    reads_served_max: int = 1
    dc_key: int = 0

    def encode(self) -> bytes:
        """The 56 bytes."""
        return struct.pack(
            "<B3xI16sH2xIIIQ8x",
            self.kind,
            self.path_mtu,
            self.gid,
            self.lid,
            self.number,
            self.packet_number,
            self.reads_served_max,
            self.dc_key,
        )


def encode_attach(rail: int, client: RdmaAddress) -> bytes:
    """The variable part of TcpAttach."""
    return struct.pack("<I4x", rail) + client.encode()


def encode_session(session_id: int) -> bytes:
    """The variable part of TcpDetach."""
    return struct.pack("<Q", session_id)


@dataclass(frozen=True)
class WriteItem:
    """One item of BatchWrite."""

    key: bytes
    rkey: int
    address: int
    value_length: int
    digest: bytes = DIGEST_ZERO
    if_absent: bool = False

    def encode(self) -> bytes:
        """The item."""
        return (
            struct.pack(
                "<HBxIQI4x16s",
                len(self.key),
                1 if self.if_absent else 0,
                self.rkey,
                self.address,
                self.value_length,
                self.digest,
            )
            + self.key
        )


@dataclass(frozen=True)
class ReadItem:
    """One item of BatchRead."""

    key: bytes
    rkey: int
    address: int
    capacity: int
    range_offset: int = 0
    range_length: int = 0

    def encode(self) -> bytes:
        """The item."""
        return (
            struct.pack(
                "<H2xIQQQQ",
                len(self.key),
                self.rkey,
                self.address,
                self.range_offset,
                self.range_length,
                self.capacity,
            )
            + self.key
        )


def encode_session_batch(session_id: int, items: Sequence[WriteItem] | Sequence[ReadItem]) -> bytes:
    """The variable part of BatchWrite and BatchRead."""
    return struct.pack("<I4xQ", len(items), session_id) + b"".join(item.encode() for item in items)


@dataclass(frozen=True)
class Slice:
    """One slice of a batch get's reply."""

    item: int
    status: int
    last: bool
    value_length: int
    value_offset: int
    length: int
    digest: bytes


def decode_slices(variable: bytes) -> list[Slice]:
    """The slices of one part; ValueError when the variable part is not exactly what section 10 describes."""
    if len(variable) < 8:
        raise ValueError("a batch get's part has no slice count")
    count, zero = struct.unpack_from("<II", variable)
    if zero or len(variable) != 8 + 48 * count:
        raise ValueError("the slices do not fill the variable part of a batch get's part")
    slices = []
    for index in range(count):
        item, status, flags, zero2, value_length, value_offset, length, zero4, digest = struct.unpack_from(
            "<IBBHQQII16s", variable, 8 + 48 * index
        )
        if zero2 or zero4 or flags & ~1:
            raise ValueError("a reserved field of a slice is not zero")
        slices.append(Slice(item, status, bool(flags & 1), value_length, value_offset, length, digest))
    return slices


@dataclass(frozen=True)
class ServerHello:
    """What a server says about itself in an accepted Hello."""

    client_nonce: bytes
    server_nonce: bytes
    version: int
    server_id: bytes
    capabilities: int
    value_bytes_max: int
    header_bytes_max: int
    batch_items_max: int
    batch_payload_bytes_max: int
    part_bytes_max: int
    frames_in_flight_max: int
    idle_timeout_ms: int

    @staticmethod
    def decode(variable: bytes) -> ServerHello:
        """The variable part of an accepted Hello; ValueError when malformed."""
        if len(variable) != 96:
            raise ValueError(f"an accepted Hello has a variable part of 96 bytes, not {len(variable)}")
        client_nonce, server_nonce, version, zero, *rest = struct.unpack("<16s16sB7s16sQQIIIIII", variable)
        if any(zero):
            raise ValueError("a reserved byte of the Hello reply is not zero")
        return ServerHello(client_nonce, server_nonce, version, *rest)


@dataclass(frozen=True)
class Part:
    """One verified frame of a reply."""

    status: Status
    variable: bytes
    payload: bytes
    value_length: int
    value_offset: int


@dataclass
class Reply:
    """A whole reply: its frames in the order of their part numbers; the status is that of the last one."""

    request_id: int
    opcode: int
    parts: list[Part] = field(default_factory=list)

    @property
    def status(self) -> Status:
        """The status that holds for the whole reply: a later failure voids what came before."""
        return self.parts[-1].status

    @property
    def variable(self) -> bytes:
        """The variable part of the last frame, which is the only one in all replies but gets."""
        return self.parts[-1].variable

    @property
    def value_length(self) -> int:
        """The header's value_length in the last frame."""
        return self.parts[-1].value_length


@dataclass
class _Open:
    """A request without a complete answer."""

    opcode: int
    digest_kind: int
    reply: Reply


@dataclass(frozen=True)
class Value:
    """What a get brings."""

    data: bytes
    generation: int
    value_length: int


@dataclass(frozen=True)
class Found:
    """What Exists says of a block that is there."""

    value_length: int
    generation: int


@dataclass(frozen=True)
class Located:
    """What Lookup says of a block that is there."""

    value_length: int
    generation: int
    crc32c: int
    lease_token: int


@dataclass(frozen=True)
class Statistics:
    """What Stat says."""

    blocks: int
    used_bytes: int
    usable_bytes: int
    uptime_ms: int
    drives_online: int
    drives_total: int


@dataclass(frozen=True)
class BatchValue:
    """What a batch get says of one item; data is empty unless the status is Ok."""

    status: Status
    data: bytes
    value_length: int


@dataclass(frozen=True)
class PrefixMatch:
    """How much of a chain of keys is there."""

    matched: int
    total_bytes: int
    value_lengths: tuple[int, ...]


_HAS_VALUE_LENGTH = {
    (Opcode.TcpGet, Status.Ok),
    (Opcode.TcpGet, Status.OutOfRange),
    (Opcode.TcpGet, Status.BufferTooSmall),
    (Opcode.Exists, Status.Ok),
    (Opcode.Lookup, Status.Ok),
}


class Client:
    """One connection to one server.

    Threading: one thread. Ownership: owns its socket; use it as a context manager or call close. Errors:
    ConnectionLost and its child ProtocolError mean the connection is gone; StatusError leaves it usable.
    """

    def __init__(
        self,
        host: str,
        port: int,
        shared_key: bytes,
        namespace: bytes = b"",
        digest_kind: int = DIGEST_CRC32C,
        timeout_s: float = 40.0,
    ) -> None:
        if len(shared_key) != 32:
            raise ValueError("the shared key is 32 bytes")
        if digest_kind not in (DIGEST_CRC32C, DIGEST_KEYED):
            raise ValueError("the digest kind is 1 (CRC32C) or 2 (keyed)")
        self._shared_key = shared_key
        self.namespace = check_namespace(namespace)
        self.digest_kind = digest_kind
        self.connection_tag = TAG_ZERO
        self.payload_key = b""
        self._next_id = 1
        self._open: dict[int, _Open] = {}
        self._done: dict[int, Reply] = {}
        try:
            self.socket = socket.create_connection((host, port), timeout=timeout_s)
        except OSError as error:
            raise ConnectionLost(f"cannot connect to {host}:{port}: {error}") from error
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.server = self._hello()
            self._authenticate()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; requests without an answer are lost."""
        self.socket.close()
        self._open.clear()

    # Opening

    def _hello(self) -> ServerHello:
        nonce = os.urandom(NONCE_BYTES)
        # The payload key does not exist yet and nobody knows what the server requires, so Hello is of kind 1.
        header = Header(Opcode.Hello, self._take_id(), variable=encode_hello(nonce))
        self._send(header, b"", DIGEST_CRC32C)
        try:
            reply = self.wait(header.request_id)
        except ProtocolError:
            raise
        except ConnectionLost as error:
            raise ConnectionLost(
                f"the server accepted the connection but did not answer the Hello ({error}): suspect that "
                "the clocks differ by more than 60 s or that the shared key is wrong"
            ) from error
        if reply.status is not Status.Ok:
            if reply.variable:
                self._nonce_must_match(nonce, reply.variable)
            raise StatusError("Hello", reply.status)
        hello = self._decode(ServerHello.decode, reply.variable)
        if hello.version != VERSION:
            self._fail(f"the server chose version {hello.version}, which was not offered")
        self._nonce_must_match(nonce, hello.client_nonce)
        self.payload_key = derive_payload_key(self._shared_key, hello.version, nonce, hello.server_nonce)
        self.connection_tag = derive_connection_tag(
            self._shared_key, hello.version, nonce, hello.server_nonce
        )
        return hello

    def _nonce_must_match(self, own: bytes, echoed: bytes) -> None:
        if not hmac.compare_digest(own, echoed):
            self._fail("the Hello reply repeats another client's nonce")

    def _authenticate(self) -> None:
        """Sends a Ping: the server keeps small limits, and a short time limit, until it has seen the tag."""
        required = self.server.capabilities & CAPABILITY_KEYED_REQUIRED
        kind = DIGEST_KEYED if required else self.digest_kind
        reply = self.wait(self.submit(Opcode.Ping, digest_kind=kind))
        if reply.status is not Status.Ok:
            raise StatusError("Ping", reply.status)

    # Frames

    def _take_id(self) -> int:
        taken = self._next_id
        self._next_id += 1
        return taken

    def _fail(self, why: str) -> None:
        self.close()
        raise ProtocolError(why)

    def _decode(self, decoder, variable: bytes):
        try:
            return decoder(variable)
        except ValueError as error:
            self.close()
            raise ProtocolError(str(error)) from error

    def _send(self, header: Header, payload: bytes | memoryview, kind: int) -> None:
        self._open[header.request_id] = _Open(header.opcode, kind, Reply(header.request_id, header.opcode))
        frame = seal(self._shared_key, header.encode(), time.time_ns())
        try:
            self.socket.sendall(frame)
            if len(payload):
                self.socket.sendall(payload)
        except OSError as error:
            self.close()
            raise ConnectionLost(f"the connection broke while a request was sent: {error}") from error

    def submit(
        self,
        opcode: int,
        variable: bytes = b"",
        payload: bytes | memoryview = b"",
        flags: int = 0,
        deadline_ms: int = 0,
        digest_kind: int | None = None,
        digest: bytes | None = None,
        request_id: int | None = None,
    ) -> int:
        """Sends one request without waiting and returns its id, to be given to wait later, in any order."""
        kind = self.digest_kind if digest_kind is None else digest_kind
        taken = self._take_id() if request_id is None else request_id
        if digest is None:
            digest = payload_digest(kind, self.payload_key, DIRECTION_REQUEST, taken, 0, 0, payload)
        header = Header(
            opcode,
            taken,
            variable=variable,
            payload_length=len(payload),
            flags=flags,
            deadline_ms=deadline_ms,
            connection_tag=self.connection_tag,
            namespace=self.namespace,
            digest_kind=kind,
            digest=digest,
        )
        self._send(header, payload, kind)
        return taken

    def wait(self, request_id: int) -> Reply:
        """The whole reply to a request; replies to others that come first are kept for their own wait."""
        while request_id not in self._done:
            if request_id not in self._open:
                raise ConnectionLost(f"request {request_id} is not open on this connection")
            self._read_frame()
        return self._done.pop(request_id)

    def _read(self, size: int) -> bytes:
        data = bytearray(size)
        view = memoryview(data)
        done = 0
        while done < size:
            try:
                got = self.socket.recv_into(view[done:])
            except OSError as error:
                self.close()
                raise ConnectionLost(f"the connection broke while a reply was read: {error}") from error
            if got == 0:
                self.close()
                raise ConnectionLost("the server closed the connection")
            done += got
        return bytes(data)

    def _read_frame(self) -> None:
        """Reads one reply frame; keeps nothing of it before every check of sections 5, 7 and 8 has passed."""
        head = self._read(FROZEN_BYTES)
        magic, version, direction = struct.unpack_from("<4sBB", head)
        header_length, _, payload_length = struct.unpack_from("<IIQ", head, 8)
        if magic != MAGIC:
            self._fail("a reply does not begin with MKVF")
        if direction != DIRECTION_REPLY:
            self._fail("a frame from the server says that it is a request")
        header_max = HEADER_BYTES_MAX if self.payload_key else HEADER_BYTES_MAX_UNAUTHENTICATED
        if not FIXED_BYTES <= header_length <= header_max:
            self._fail(f"a reply has a header of {header_length} bytes")
        if payload_length > PART_BYTES_MAX:
            self._fail(f"a reply has a payload of {payload_length} bytes, more than a part may have")
        encoded = head + self._read(header_length - FROZEN_BYTES)
        trailer = self._read(TRAILER_BYTES)
        if not trailer_is_authentic(self._shared_key, encoded, trailer):
            self._fail("the MAC of a reply is wrong")
        stamp = int.from_bytes(trailer[:8], "little")
        if abs(stamp - time.time_ns()) > DRIFT_NS_MAX:
            self._fail("a reply is stamped more than 60 s away from this clock")
        if version != VERSION:
            self._fail(f"a reply has version {version}")
        header = Header.decode(encoded)
        self._check_tag(header)
        waiting = self._open.get(header.request_id)
        if waiting is None:
            self._fail(f"a reply answers request {header.request_id}, which is not open")
        self._check_fields(header, waiting)
        payload = self._read(payload_length)
        status = status_of(header.status)
        if not self._digest_is_right(header, waiting, payload):
            self._fail("the digest of a reply's payload is wrong")
        waiting.reply.parts.append(
            Part(status, header.variable, payload, header.value_length, header.value_offset)
        )
        if header.flags & FLAG_LAST:
            del self._open[header.request_id]
            self._done[header.request_id] = waiting.reply

    def _check_tag(self, header: Header) -> None:
        """The answer to a version too high has a zero tag, all others that of the connection."""
        expected = self.connection_tag
        if header.status == Status.UnsupportedVersion:
            if header.connection_tag not in (TAG_ZERO, expected):
                self._fail("a reply has the tag of another connection")
        elif not hmac.compare_digest(header.connection_tag, expected):
            self._fail("a reply has the tag of another connection")

    def _check_fields(self, header: Header, waiting: _Open) -> None:
        status = status_of(header.status)
        if header.opcode != waiting.opcode:
            self._fail(f"request {header.request_id} is answered with another opcode")
        if header.part_number != len(waiting.reply.parts):
            self._fail(f"part {header.part_number} came where {len(waiting.reply.parts)} was due")
        if header.zero_frozen or any(header.zero_digest) or header.flags & ~FLAG_LAST:
            self._fail("a reserved field or flag of a reply is not zero")
        if header.deadline_ms or any(header.namespace):
            self._fail("a reply has a deadline or a namespace")
        if header.digest_kind not in (DIGEST_CRC32C, DIGEST_KEYED):
            self._fail(f"a reply has digest kind {header.digest_kind}")
        if status is not Status.Ok:
            if header.payload_length:
                self._fail(f"a reply with status {status.name} has a payload")
            if not header.flags & FLAG_LAST:
                self._fail(f"a reply with status {status.name} is not the last")
            allowed = {NONCE_BYTES} if waiting.opcode == Opcode.Hello else {0}
            if status is Status.UnsupportedVersion:
                allowed.add(0)
            if len(header.variable) not in allowed:
                self._fail(
                    f"a reply with status {status.name} has a variable part of {len(header.variable)} bytes"
                )
        elif header.digest_kind != waiting.digest_kind:
            self._fail("a reply has another digest kind than its request asked for")
        if header.value_length and (waiting.opcode, status) not in _HAS_VALUE_LENGTH:
            self._fail("a reply that has no value_length has one")
        if header.value_offset and (waiting.opcode, status) != (Opcode.TcpGet, Status.Ok):
            self._fail("a reply that has no value_offset has one")
        if waiting.opcode not in (Opcode.TcpGet, Opcode.TcpBatchGet):
            if header.payload_length:
                self._fail("a reply that has no payload has one")
            if not header.flags & FLAG_LAST:
                self._fail("a reply of one frame is not marked as the last")

    def _digest_is_right(self, header: Header, waiting: _Open, payload: bytes) -> bool:
        kind = header.digest_kind
        if waiting.opcode == Opcode.TcpBatchGet and status_of(header.status) is Status.Ok:
            if header.digest != DIGEST_ZERO:
                return False
            slices = self._decode(decode_slices, header.variable)
            if sum(piece.length for piece in slices) != len(payload):
                self._fail("the slices of a batch get's part are not its payload")
            view = memoryview(payload)
            begin = 0
            for piece in slices:
                data = view[begin : begin + piece.length]
                begin += piece.length
                expected = payload_digest(
                    kind,
                    self.payload_key,
                    DIRECTION_REPLY,
                    header.request_id,
                    header.part_number,
                    piece.item,
                    data,
                )
                if not hmac.compare_digest(expected, piece.digest):
                    return False
            return True
        expected = payload_digest(
            kind, self.payload_key, DIRECTION_REPLY, header.request_id, header.part_number, 0, payload
        )
        return hmac.compare_digest(expected, header.digest)

    def _unpack(self, layout: str, variable: bytes, what: str) -> tuple:
        """The fields of a variable part that has exactly that layout."""
        if struct.calcsize(layout) != len(variable):
            self._fail(f"the variable part of a reply to {what} has {len(variable)} bytes")
        return struct.unpack(layout, variable)

    def _ask(self, what: str, expected: tuple[Status, ...], opcode: int, *args, **kwargs) -> Reply:
        reply = self.wait(self.submit(opcode, *args, **kwargs))
        if reply.status not in expected:
            raise StatusError(what, reply.status, reply.value_length)
        return reply

    # Operations

    def ping(self) -> None:
        """Asks for a sign of life."""
        reply = self._ask("Ping", (Status.Ok,), Opcode.Ping)
        self._unpack("<", reply.variable, "Ping")

    def stat(self) -> Statistics:
        """The server's counts."""
        reply = self._ask("Stat", (Status.Ok,), Opcode.Stat)
        return Statistics(*self._unpack("<QQQQII", reply.variable, "Stat"))

    def submit_put(self, key: bytes, value: bytes, if_absent: bool = False, deadline_ms: int = 0) -> int:
        """Sends a put without waiting for its answer."""
        flags = FLAG_IF_ABSENT if if_absent else 0
        return self.submit(Opcode.TcpPut, encode_key(check_key(key)), value, flags, deadline_ms)

    def finish_put(self, request_id: int) -> int:
        """The generation that a put made."""
        reply = self.wait(request_id)
        if reply.status is not Status.Ok:
            raise StatusError("TcpPut", reply.status)
        return self._unpack("<Q", reply.variable, "TcpPut")[0]

    def put(self, key: bytes, value: bytes, if_absent: bool = False, deadline_ms: int = 0) -> int:
        """Stores a block and returns its generation; StatusError AlreadyExists when it should be absent."""
        return self.finish_put(self.submit_put(key, value, if_absent, deadline_ms))

    def submit_get(self, item: GetItem, deadline_ms: int = 0) -> int:
        """Sends a get without waiting for its answer."""
        check_key(item.key)
        return self.submit(Opcode.TcpGet, item.encode(), deadline_ms=deadline_ms)

    def finish_get(self, request_id: int, item: GetItem) -> Value | None:
        """The value a get was answered with; the parts must be the range asked for, whole and in order."""
        reply = self.wait(request_id)
        if reply.status is Status.NotFound:
            return None
        if reply.status is not Status.Ok:
            raise StatusError("TcpGet", reply.status, reply.value_length)
        generation = self._unpack("<Q", reply.variable, "TcpGet")[0]
        value_length = reply.value_length
        position = item.range_offset
        for part in reply.parts:
            if self._unpack("<Q", part.variable, "TcpGet")[0] != generation:
                self._fail("the parts of a get are of two generations")
            if part.value_length != value_length or part.value_offset != position:
                self._fail("the parts of a get do not follow one another")
            position += len(part.payload)
        data = b"".join(part.payload for part in reply.parts)
        if item.range_offset > value_length or len(data) != item.bytes_expected(value_length):
            self._fail(f"a get brought {len(data)} bytes, which is not the range asked for")
        if item.capacity and len(data) > item.capacity:
            self._fail("a get brought more bytes than the capacity")
        return Value(data, generation, value_length)

    def get(
        self,
        key: bytes,
        range_offset: int = 0,
        range_length: int = 0,
        capacity: int = 0,
        deadline_ms: int = 0,
    ) -> Value | None:
        """The block or a range of it; None for a miss; StatusError for OutOfRange and the like."""
        item = GetItem(key, range_offset, range_length, capacity)
        return self.finish_get(self.submit_get(item, deadline_ms), item)

    def delete(self, key: bytes, opcode: int = Opcode.TcpDelete) -> bool:
        """Whether there was such a block; there is none afterwards."""
        reply = self._ask("TcpDelete", (Status.Ok, Status.NotFound), opcode, encode_key(check_key(key)))
        self._unpack("<", reply.variable, "TcpDelete")
        return reply.status is Status.Ok

    def exists(self, key: bytes) -> Found | None:
        """Length and generation of a block, or None."""
        reply = self._ask("Exists", (Status.Ok, Status.NotFound), Opcode.Exists, encode_key(check_key(key)))
        if reply.status is Status.NotFound:
            return None
        return Found(reply.value_length, self._unpack("<Q", reply.variable, "Exists")[0])

    def lookup(self, key: bytes) -> Located | None:
        """Length, generation and CRC32C of a block, or None."""
        reply = self._ask("Lookup", (Status.Ok, Status.NotFound), Opcode.Lookup, encode_key(check_key(key)))
        if reply.status is Status.NotFound:
            return None
        generation, crc, zero4, token, zero8 = self._unpack("<QIIQQ", reply.variable, "Lookup")
        if zero4 or zero8:
            self._fail("a reserved field of a reply to Lookup is not zero")
        return Located(reply.value_length, generation, crc, token)

    def put_batch(
        self, items: Sequence[PutItem], digests: Sequence[bytes] | None = None
    ) -> list[tuple[Status, int]]:
        """Status and generation of each item; digests may be given to see wrong ones refused."""
        taken = self._take_id()
        if digests is None:
            digests = [
                payload_digest(
                    self.digest_kind, self.payload_key, DIRECTION_REQUEST, taken, 0, index, item.value
                )
                for index, item in enumerate(items)
            ]
        self.submit(
            Opcode.TcpBatchPut,
            encode_put_items(items, digests),
            b"".join(item.value for item in items),
            digest=DIGEST_ZERO,
            request_id=taken,
        )
        reply = self.wait(taken)
        if reply.status is not Status.Ok:
            raise StatusError("TcpBatchPut", reply.status)
        self._count_must_be(reply.variable, len(items), 16, "TcpBatchPut")
        results = []
        for status, zero, generation in struct.iter_unpack("<B7sQ", reply.variable[8:]):
            if any(zero):
                self._fail("a reserved byte of a reply to TcpBatchPut is not zero")
            results.append((status_of(status), generation))
        return results

    def _count_must_be(self, variable: bytes, count: int, item_bytes: int, what: str) -> None:
        if len(variable) != 8 + count * item_bytes or struct.unpack_from("<II", variable) != (count, 0):
            self._fail(f"the reply to {what} is not about {count} items")

    def get_batch(self, items: Sequence[GetItem]) -> list[BatchValue]:
        """One result for each item, in the order of the request."""
        reply = self._ask("TcpBatchGet", (Status.Ok,), Opcode.TcpBatchGet, encode_get_items(items))
        pieces: list[list[bytes]] = [[] for _ in items]
        positions = [item.range_offset for item in items]
        lengths: list[int | None] = [None] * len(items)
        results: list[BatchValue | None] = [None] * len(items)
        for part in reply.parts:
            begin = 0
            for piece in self._decode(decode_slices, part.variable):
                data = part.payload[begin : begin + piece.length]
                begin += piece.length
                if piece.item >= len(items) or results[piece.item] is not None:
                    self._fail("a slice belongs to an item that was not asked for or is complete")
                index, status = piece.item, status_of(piece.status)
                if status is not Status.Ok:
                    if piece.length or not piece.last:
                        self._fail("a slice that failed has bytes or is not the last of its item")
                    results[index] = BatchValue(status, b"", piece.value_length)
                    continue
                if lengths[index] not in (None, piece.value_length) or piece.value_offset != positions[index]:
                    self._fail("the slices of an item do not follow one another")
                lengths[index] = piece.value_length
                positions[index] += piece.length
                pieces[index].append(data)
                if piece.last:
                    whole = b"".join(pieces[index])
                    if len(whole) != items[index].bytes_expected(piece.value_length):
                        self._fail("the slices of an item are not the range asked for")
                    results[index] = BatchValue(status, whole, piece.value_length)
        if any(result is None for result in results):
            self._fail("an item of a batch get has no last slice")
        return [result for result in results if result is not None]

    def delete_batch(self, keys: Sequence[bytes]) -> list[Status]:
        """A status for each key."""
        reply = self._ask("TcpBatchDelete", (Status.Ok,), Opcode.TcpBatchDelete, encode_key_list(keys))
        self._count_must_be(reply.variable, len(keys), 1, "TcpBatchDelete")
        return [status_of(code) for code in reply.variable[8:]]

    def exists_batch(self, keys: Sequence[bytes]) -> list[tuple[Status, int]]:
        """Status and value length of each key."""
        reply = self._ask("BatchExists", (Status.Ok,), Opcode.BatchExists, encode_key_list(keys))
        count = len(keys)
        self._count_must_be(reply.variable, count, 9, "BatchExists")
        statuses = [status_of(code) for code in reply.variable[8 : 8 + count]]
        lengths = struct.unpack_from(f"<{count}Q", reply.variable, 8 + count)
        if any(length and status is not Status.Ok for status, length in zip(statuses, lengths)):
            self._fail("a block that is not there has a length in the reply to BatchExists")
        return list(zip(statuses, lengths))

    def prefix(self, keys: Sequence[bytes]) -> PrefixMatch:
        """How many of the keys are there, from the first on and without a gap."""
        reply = self._ask("Prefix", (Status.Ok,), Opcode.Prefix, encode_key_list(keys))
        if len(reply.variable) < 16:
            self._fail("the reply to Prefix is too short")
        matched, zero, total = struct.unpack_from("<IIQ", reply.variable)
        if zero or matched > len(keys) or len(reply.variable) != 16 + 8 * matched:
            self._fail("the reply to Prefix does not hold what it counts")
        lengths = struct.unpack_from(f"<{matched}Q", reply.variable, 16)
        if sum(lengths) != total:
            self._fail("the total of the reply to Prefix is not the sum of its lengths")
        return PrefixMatch(matched, total, lengths)
