"""Administration endpoints that are well, ill, or something else altogether, for tests of memkv admin.

Threading: each endpoint has threads of its own and stops with close(). Errors: OSError.
"""

import json
import socket
import ssl
import struct
import threading
import time


def status_document(number=0, **changes):
    device = {
        "device_id": 0,
        "media": f"/dev/nvme{number}n1",
        "model": "Fake",
        "state": "online",
        "reason": "",
        "member": True,
        "raw_bytes": 1 << 40,
        "usable_bytes": 1_000_000_000_000,
        "used_bytes": 250_000_000_000,
        "blocks": 1000 + number,
        "failure_count": 0,
        "blacklisted": False,
    }
    return {
        "status": "healthy",
        "reasons": [],
        "version": f"RELEASE.{number}",
        "phase": "serving",
        "uptime_seconds": 10000.5,
        "fault_injection": False,
        "license": {"valid": True, "plan": "Enterprise", "days_left": 30},
        "memory": {"pool_bytes": 1 << 30, "pool_used_bytes": 1 << 29, "huge_pages": True},
        "storage": {
            "mode": "direct",
            "raw_bytes_total": 1 << 40,
            "usable_bytes_total": 1_000_000_000_000,
            "used_bytes_total": 250_000_000_000,
            "blocks_total": 1000 + number,
            "drives_online": 1,
            "drives_offline": 0,
            "drives_total": 1,
            "devices": [device],
        },
        "rdma": {"active": False, "connections": 3, "sessions": 1},
        "network": {"connections": 2},
        "actors": [{"name": "drive-0", "alive": True, "answered": True, "mailbox": 0, "restarts": 4}],
        **changes,
    }


HEALTH = {
    "status": "healthy",
    "rdma_active": True,
    "drives_online": 12,
    "drives_offline": 0,
    "drives_total": 12,
}
FAILED = [
    {
        "device_id": 2,
        "failure_count": 3,
        "first_failed_at": 1738800000,
        "last_failed_at": 1738810000,
        "blacklisted": False,
    }
]
METRICS = "# HELP memkv_blocks_total Blocks.\n# TYPE memkv_blocks_total gauge\nmemkv_blocks_total %d\n"


def http(code, body, kind="application/json", reason="Any", extra=""):
    if not isinstance(body, (str, bytes)):
        body = json.dumps(body)
    if isinstance(body, str):
        body = body.encode()
    head = f"HTTP/1.1 {code} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


class Listener:
    """Accepts on a port of the loopback interface and calls `serve` with every connection."""

    def __init__(self, serve, family=socket.AF_INET, context=None):
        self.serve, self.context = serve, context
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        self.socket.listen(64)
        self.port = self.socket.getsockname()[1]
        self.accepted, self.closed = 0, threading.Event()
        threading.Thread(target=self.run, daemon=True).start()

    @property
    def address(self):
        host = "[::1]" if self.socket.family == socket.AF_INET6 else "127.0.0.1"
        return f"{host}:{self.port}"

    @property
    def url(self):
        return f"{'https' if self.context else 'http'}://{self.address}"

    def run(self):
        while not self.closed.is_set():
            try:
                connection = self.socket.accept()[0]
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self.attend, args=(connection,), daemon=True).start()

    def attend(self, connection):
        try:
            with connection:
                if self.context is not None:
                    connection = self.context.wrap_socket(connection, server_side=True)
                self.serve(self, connection)
        except (OSError, ssl.SSLError):
            pass  # the client went away, as it may

    def close(self):
        self.closed.set()
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()


def read_request(connection):
    """Method, target, headers in lower case."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(4096)
        if not piece:
            return None
        data += piece
    lines = data.split(b"\r\n\r\n")[0].decode().split("\r\n")
    method, target, _ = lines[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return method, target, headers


class Endpoint(Listener):
    """A server that is well; `answers` replaces the answer of a target by bytes or by a function."""

    def __init__(self, number=0, answers=None, **more):
        self.requests = []
        self.answers = {
            "/v1/health": http(200, HEALTH),
            "/v1/ready": http(200, "ok", "text/plain"),
            "/v1/status": http(200, status_document(number)),
            "/v1/metrics": http(200, METRICS % number, "text/plain; version=0.0.4"),
            "/v1/drives/failed": http(200, FAILED),
            **(answers or {}),
        }
        super().__init__(Endpoint.answer, **more)

    def answer(self, connection):
        request = read_request(connection)
        if request is None:
            return
        self.requests.append(request)
        answer = self.answers.get(request[1], http(404, {"error": "there is no such path"}))
        connection.sendall(answer(request) if callable(answer) else answer)
        connection.shutdown(socket.SHUT_WR)


def sends(data, then_wait=False):
    """Serves the same bytes whatever is asked."""

    def serve(listener, connection):
        read_request(connection)
        connection.sendall(data)
        if then_wait:
            listener.closed.wait(60)

    return serve


def says_nothing(listener, connection):
    listener.closed.wait(60)


def closes(listener, connection):
    pass


def resets(listener, connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def drips(head):
    """A byte at a time, for ever, after the head: each byte is in time, the answer never is."""

    def serve(listener, connection):
        read_request(connection)
        connection.sendall(head)
        while not listener.closed.wait(0.05):
            connection.sendall(b" ")

    return serve


def never_ends(head, piece=b"x" * 65536):
    def serve(listener, connection):
        read_request(connection)
        connection.sendall(head)
        while not listener.closed.is_set():
            connection.sendall(piece)

    return serve


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def strangers():
    """Name, what serves, and a part of the sentence that memkv admin must say about it, for any question."""
    return [
        ("closes at once", closes, "if this is the data port"),
        ("resets", resets, "if this is the data port"),
        ("a frame of the wire protocol", sends(b"MKVF" + bytes(60)), "this is the data port"),
        ("a banner", sends(b"SSH-2.0-OpenSSH_9.2\r\n", True), "if this is the data port"),
        ("zeros", sends(bytes(100_000)), "if this is the data port"),
        ("a TLS alert", sends(b"\x15\x03\x03\x00\x02\x02\x28"), "speaks TLS"),
        ("half a status line", sends(b"HTTP/1.1 2"), "in the middle of the answer"),
        ("a status that is no number", sends(b"HTTP/1.1 abc OK\r\n\r\n"), "cannot be read"),
        (
            "a body that is cut short",
            sends(OK + b"Content-Length: 100\r\n\r\n{"),
            "in the middle of the answer",
        ),
        ("a chunk that is cut short", sends(CHUNKED + b"64\r\n{"), "in the middle of the answer"),
        ("chunks of nonsense", sends(CHUNKED + b"zz\r\n{}\r\n", True), "chunks of the answer"),
        ("two lengths", sends(OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"), "cannot be read"),
        ("a length beyond everything", sends(OK + b"Content-Length: 99999999999\r\n\r\n", True), "MiB"),
        ("endless headers", never_ends(OK, b"X: y\r\n" * 1000), "64 KiB of headers"),
        ("an endless header", never_ends(OK + b"X: "), "64 KiB of headers"),
        ("an endless body", never_ends(OK + b"\r\n"), "MiB"),
        ("endless chunks", never_ends(CHUNKED, b"4000\r\n" + b"x" * 0x4000 + b"\r\n"), "MiB"),
        ("endless interim answers", never_ends(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "sends none"),
        ("a redirection", sends(http(302, "", extra="Location: http://127.0.0.1:1/\r\n")), "HTTP 302"),
        ("a proxy's page", sends(http(502, "<html>bad gateway</html>", "text/html")), "HTTP 502"),
        (
            "an error",
            sends(http(503, {"error": "drive-1 is stuck", "silent": ["drive-1"]})),
            "drive-1 is stuck",
        ),
        ("an error with escapes", sends(http(500, {"error": "\x1b[2Jgone\u202e"})), "HTTP 500: ?[2Jgone?"),
        ("an error of another type", sends(http(500, b"[7]")), "HTTP 500"),
        ("an error that is no UTF-8", sends(http(500, b"\xff\xfe\x00")), "HTTP 500: ???"),
    ]


def slow_ones():
    """Endpoints that never finish; each must cost the deadline and no more."""
    return [
        ("says nothing", says_nothing, "no answer within"),
        ("drips a body", drips(OK + b"Content-Length: 100000\r\n\r\n"), "had not ended after"),
        ("drips headers", drips(b"HTTP/1.1 200 OK\r\nX: "), "had not ended after"),
        ("drips after nothing", drips(b"HTTP/1.1 200 OK\r\n\r\n"), "had not ended after"),
        ("stops in the middle", sends(OK + b"Content-Length: 100\r\n\r\n{", True), "had not ended after"),
    ]


def wrong_documents():
    """Answers of 200 with a body that is none; for the questions that bring JSON."""
    deep = b'{"a":' * 200_000
    return [
        ("empty", b""),
        ("HTML", b"<!doctype html><title>console</title>"),
        ("half a document", b'{"status": "healthy", '),
        ("no UTF-8", b'{"status": "\xff"}'),
        ("a number", b"17"),
        ("null", b"null"),
        ("other types", b'{"status": {"a": 1}, "storage": "none"}'),
        ("a list of numbers", b"[1, 2, 3]"),
        ("too deep", deep),
        ("too many brackets", b"[" * 5_000_000),
        ("a number beyond numbers", b'{"status": 1e99999}'),
    ]


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
