"""What an attacker may send to the administration endpoint of a real server, or not send.

    admin_attack_test.py MEMKV [TEST...]

After each attack the endpoint answers and the data path serves. No speed is asserted: limits on time are
those of something that never comes, because other work on the machine, or a machine that stands still for
seconds, must not fail the test. The figures are printed. MEMKV_ADMIN_LOAD_S is another length for the
measurement of the data path.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import select
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import live_server
from live_server import KEY, MIB, Server, page

MEMKV = live_server.program()
ATTACKERS = 40
LIMIT_S = 60.0  # whoever waits for longer waits in vain; milliseconds to seconds on a machine at rest
# A request that took so long may have met a machine that stood still, and the endpoint's 3 s for a request.
STALLED_S = 1.0
SEND_BYTES = 256 * 1024  # the kernel's buffer of an attacker: what it holds has not reached the server
LOAD_S = float(os.environ.get("MEMKV_ADMIN_LOAD_S") or 6)  # of each kind
ROUNDS = 3


def connect(port: int, timeout_s: float = LIMIT_S) -> socket.socket:
    """A connection from loopback."""
    one = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
    return one


def read_all(one: socket.socket, limit_s: float = LIMIT_S) -> bytes:
    """What comes until the server closes; AssertionError when it does not."""
    end, data = time.monotonic() + limit_s, b""
    while True:
        one.settimeout(max(end - time.monotonic(), 0.01))
        try:
            more = one.recv(65536)
        except ConnectionError:
            return data
        except TimeoutError:
            raise AssertionError(f"the server has not closed within {limit_s:g} s; {data[:80]!r}") from None
        if not more:
            return data
        data += more


def exchange(port: int, request: bytes, limit_s: float = LIMIT_S) -> bytes:
    """Sends all of it, and returns what comes until the server closes."""
    with connect(port) as one:
        with contextlib.suppress(ConnectionError):
            one.sendall(request)
        return read_all(one, limit_s)


def ask(
    port: int, line: str, headers: str = "", body: bytes = b"", host: str = "localhost"
) -> tuple[int, bytes]:
    """One request; status and body."""
    headers = f"Host: {host}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n{headers}"
    answer = exchange(port, f"{line} HTTP/1.1\r\n{headers}\r\n".encode() + body)
    return status_of(answer), answer.partition(b"\r\n\r\n")[2]


def status_of(answer: bytes) -> int:
    """Of the first answer."""
    if not answer.startswith(b"HTTP/1.1 "):
        raise AssertionError(f"no answer of HTTP: {answer[:80]!r}")
    return int(answer[9:12])


def signature(
    target: str, at: int, nonce: str, key: bytes = KEY, body: bytes = b"", method: str = "POST"
) -> str:
    """The three headers of a signed request, made from the page alone."""
    text = f"memkv admin request v1\n{method}\n{target}\n{hashlib.sha256(body).hexdigest()}\n{at}\n{nonce}\n"
    made = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return f"X-Memkv-Time: {at}\r\nX-Memkv-Nonce: {nonce}\r\nX-Memkv-Signature: {made}\r\n"


def percentile(times: list[float], share: float) -> float:
    """Of all of them, sorted."""
    return sorted(times)[min(int(len(times) * share), len(times) - 1)]


class Attack(unittest.TestCase):
    """A server for all attacks of a class, and what must hold after each."""

    network = ""
    tls: ssl.SSLContext | None = None

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server(MEMKV, network=cls.network)
        cls.server.start()
        cls.port = cls.server.admin_port
        cls.warm = False

    def setUp(self) -> None:
        """Every worker has answered: what it keeps for itself is there, and is no growth later."""
        if type(self).warm:
            return
        type(self).warm = True

        def some() -> None:
            for _ in range(20):
                with contextlib.suppress(OSError):
                    self.health()

        askers = [threading.Thread(target=some) for _ in range(16)]
        for each in askers:
            each.start()
        for each in askers:
            each.join()
        self.probe()

    @classmethod
    def tearDownClass(cls) -> None:
        code = cls.server.stop()
        cls.server.close()
        assert code == 0, "the server did not stop in good order"

    def tearDown(self) -> None:
        self.probe()
        with self.server.client() as client:
            client.put(b"after", b"an attack")
            self.assertEqual(client.get(b"after").data, b"an attack")

    def health(self) -> bytes:
        """Asks for health on a new connection; what came."""
        with connect(self.port) as plain:
            with self.tls.wrap_socket(plain) if self.tls else contextlib.nullcontext(plain) as one:
                one.sendall(b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return read_all(one)

    def probe(self) -> float:
        """Health is answered, at the first attempt unless the machine stood still; how long it took."""
        begin = time.monotonic()
        while True:
            asked = time.monotonic()
            try:
                answer = self.health()
            except OSError as problem:
                answer = str(problem).encode()
            now = time.monotonic()
            if answer.startswith(b"HTTP/1.1 200 ") or now - asked < STALLED_S or now - begin > LIMIT_S:
                break
        self.assertEqual(status_of(answer), 200, answer)
        return now - begin

    def probe_for(self, seconds: float) -> float:
        """Probes again and again; the longest answer."""
        end, longest = time.monotonic() + seconds, 0.0
        while time.monotonic() < end:
            longest = max(longest, self.probe())
            time.sleep(0.1)
        return longest

    def answers(self) -> bool:
        """Whether a probe is answered."""
        try:
            return self.probe() > 0
        except (OSError, AssertionError):
            return False

    def report(self, text: str) -> None:
        """A figure, for whoever reads the output."""
        print(f"{self.id().split('.')[-1]}: {text}", flush=True)


class Requests(Attack):
    """What is wrong with a request itself."""

    def endless(self, begin: bytes, piece: bytes) -> int:
        """Sends without an end, up to 64 MiB; how much was taken before the server closed."""
        before, taken = self.server.memory(), 0
        with connect(self.port) as one:
            one.sendall(begin)
            with contextlib.suppress(ConnectionError):
                while taken < 64 * MIB:
                    one.sendall(piece)
                    taken += len(piece)
        grown = self.server.memory() - before
        self.report(f"cut after {taken / MIB:.2f} MiB, memory grew by {grown / MIB:.2f} MiB")
        self.assertLess(taken, 8 * MIB)
        self.assertLess(grown, 8 * MIB)
        return taken

    def test_endless_header(self) -> None:
        self.endless(b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"x" * 65536)

    def test_endless_headers(self) -> None:
        self.endless(b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: y\r\n" * 10000)

    def test_endless_request_line(self) -> None:
        self.endless(b"GET /", b"a" * 65536)

    def test_endless_body(self) -> None:
        self.endless(b"POST /v1/drives/0/reset HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n",
                     b"x" * 65536)

    def test_endless_chunks(self) -> None:
        self.endless(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                     b"ffff\r\n" + b"x" * 65535)

    def test_what_is_no_request_is_refused(self) -> None:
        get = b"GET /v1/health HTTP/1.1\r\nHost: a\r\n"
        for request, status in (
            (b"\0" * 100, 400), (b"\xff" * 100, 400), (b"hello\r\n\r\n", 400), (b"GET\r\n\r\n", 400),
            (b"GET /v1/health HTTP/9.9\r\nHost: a\r\n\r\n", 400), (b"GET /v1/health HTTP/1.1\r\n\r\n", 400),
            (get + b"Host: b\r\n\r\n", 400), (get + b" folded\r\n\r\n", 400), (get + b"a : b\r\n\r\n", 400),
            (get + b"a: \0\r\n\r\n", 400), (get + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
            (get + b"Content-Length: -5\r\n\r\n", 400), (get + b"Transfer-Encoding: chunked\r\n\r\n", 411),
            (get + b"X: y\r\n" * 200 + b"\r\n", 431), (get + b"X: " + b"y" * 9000 + b"\r\n\r\n", 431),
            (get + b"Content-Length: 18446744073709551616\r\n\r\n", 413),
        ):
            answer = exchange(self.port, request)
            self.assertEqual(status_of(answer), status, request[:100])
            self.assertIn("error", json.loads(answer.partition(b"\r\n\r\n")[2]))

    def test_bad_methods(self) -> None:
        for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "POST"):
            self.assertEqual(ask(self.port, f"{method} /v1/status")[0], 405)
        for method in ("BREW", "get", "PROPFIND", "M-SEARCH"):
            self.assertEqual(ask(self.port, f"{method} /v1/status")[0], 400)
        self.assertEqual(ask(self.port, "GET /v1/drives/0/reset")[0], 405)

    def test_traversal(self) -> None:
        for path in ("/../../../../etc/passwd", "/..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e/etc/passwd",
                     "//etc/passwd", "/console/../../etc/passwd", "/..\\..\\etc\\passwd", "/v1/%00",
                     "/v1/drives/../status",
                     "/%c0%ae%c0%ae/etc/passwd", "/file:///etc/passwd", "/%25%32%65", "/v1/%u002e"):
            status, body = ask(self.port, f"GET {path}")
            self.assertEqual(status, 404, path)
            self.assertNotIn(b"root:", body)

    def test_absurd_ranges(self) -> None:
        before, (_, whole) = self.server.memory(), ask(self.port, "GET /v1/openapi.json")
        for ranges in ("0-" + ",0-" * 2000, "-1", "99999999999999999999-", "5-2", "x", "0-0," * 1000,
                       "-" + "9" * 4000):
            status, body = ask(self.port, "GET /v1/openapi.json", f"Range: bytes={ranges}\r\n")
            self.assertEqual((status, body), (200, whole), ranges[:20])
        self.assertLess(self.server.memory() - before, 8 * MIB)

    def test_bad_json_and_bad_parameters(self) -> None:
        for body in (b"{", b"[" * 60000, b'{"a":' * 10000, b"\xff\xfe", b"null", b"1e999999"):
            self.assertEqual(ask(self.port, "POST /v1/faults", body=body)[0], 404)
            self.assertEqual(ask(self.port, "POST /v1/drives/0/reset", body=body)[0], 400)
        for target in ("/v1/status?x", "/v1/drives/0/reset?secure=maybe", "/v1/drives/99999999999/reset",
                       "/v1/drives/0/reset?secure=true&secure=true", "/v1/drives/%30/reset"):
            method = "POST" if "reset" in target else "GET"
            self.assertEqual(ask(self.port, f"{method} {target}")[0], 400, target)

    def test_pipelining(self) -> None:
        one_request = b"GET /v1/ready HTTP/1.1\r\nHost: localhost\r\n\r\n"
        before = self.server.memory()
        with connect(self.port) as one:
            # More than a connection may ask: the last answer says that it ends.
            sender = threading.Thread(target=lambda: self.send_quietly(one, one_request * 1500))
            sender.start()
            answers = read_all(one)
            sender.join()
        self.assertEqual(answers.count(b"HTTP/1.1 200 OK"), 1000)
        self.assertEqual(answers.count(b"Connection: close"), 1)
        self.assertLess(self.server.memory() - before, 8 * MIB)
        smuggled = (b"POST /v1/ready HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n"
                    b"Transfer-Encoding: chunked\r\n\r\n")
        self.assertEqual(exchange(self.port, smuggled + b"0\r\n\r\n" + one_request).count(b"HTTP/1.1 "), 1)

    @staticmethod
    def send_quietly(one: socket.socket, data: bytes) -> None:
        """The server may close before the end."""
        with contextlib.suppress(OSError):
            one.sendall(data)

    def test_the_wire_protocol_on_the_admin_port(self) -> None:
        with self.assertRaises((page.ConnectionLost, OSError)):
            page.Client("127.0.0.1", self.port, KEY, b"", page.DIGEST_CRC32C, 5.0)
        header = page.Header(page.Opcode.Hello, 1, variable=page.encode_hello(os.urandom(16)))
        hello = page.seal(KEY, header.encode(), time.time_ns())
        answer = exchange(self.port, hello)
        self.assertEqual(status_of(answer), 400)
        self.assertIn(b"data port", answer)

    def test_http_on_the_data_port(self) -> None:
        with connect(self.server.port) as one:
            one.sendall(b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n" + b"x" * 200)
            self.assertNotIn(b"HTTP/", read_all(one))


class Changes(Attack):
    """Requests that change something, and who may not cause them. 409 is the answer to one that is let
    through: a memory drive has nothing to reset."""

    target = "/v1/drives/0/reset"

    def post(self, headers: str = "", host: str = "localhost") -> int:
        """The status of a reset with these headers."""
        return ask(self.port, f"POST {self.target}", headers, host=host)[0]

    def test_signatures(self) -> None:
        now = int(time.time())
        fresh = lambda: os.urandom(16).hex()  # noqa: E731
        good = signature(self.target, now, fresh())
        self.assertEqual(self.post(good), 409)
        self.assertEqual(self.post(good), 401, "replayed")
        self.assertEqual(self.post(signature(self.target, now - 120, fresh())), 401, "stale")
        self.assertEqual(self.post(signature(self.target, now + 120, fresh())), 401, "from the future")
        self.assertEqual(self.post(signature(self.target, now, fresh(), bytes(32))), 401, "wrong key")
        other = self.target + "?secure=true"
        self.assertEqual(self.post(signature(other, now, fresh())), 401, "other query")
        self.assertEqual(self.post(signature(self.target, now, fresh(), method="GET")), 401, "other method")
        self.assertEqual(self.post(signature(self.target, now, fresh(), body=b"x")), 401, "other body")
        self.assertEqual(self.post(signature(self.target, now, fresh()) * 2), 401, "twice")
        self.assertEqual(self.post(f"X-Memkv-Time: {now}\r\n"), 401, "half of one")
        self.assertEqual(self.post("X-Forwarded-For: 192.0.2.1\r\n"), 401, "through a proxy")

    def test_cross_site(self) -> None:
        own = f"localhost:{self.port}"
        for headers in ("Origin: https://evil.example\r\n", "Origin: null\r\n",
                        "Sec-Fetch-Site: cross-site\r\n",
                        "Sec-Fetch-Site: same-site\r\n", f"Origin: http://{own}0\r\n",
                        f"Origin: http://{own}@evil.example\r\n"):
            self.assertEqual(self.post(headers, own), 403, headers)
            self.assertEqual(ask(self.port, "GET /v1/status", headers, host=own)[0], 403, headers)
        self.assertEqual(self.post(f"Origin: http://{own}\r\nSec-Fetch-Site: same-origin\r\n", own), 409)

    def test_dns_rebinding(self) -> None:
        for host in ("evil.example", f"evil.example:{self.port}", "localhost.evil.example",
                     "127.0.0.1.nip.example"):
            headers = f"Origin: http://{host}\r\nSec-Fetch-Site: same-origin\r\n"
            self.assertEqual(self.post(headers, host), 403, host)
            self.assertEqual(self.post("", host), 403, host)
        self.assertEqual(self.post("", "evil.example\r\nHost: localhost"), 400)


class Slowness(Attack):
    """Peers that take their time."""

    def test_slowloris(self) -> None:
        attackers = [connect(self.port) for _ in range(ATTACKERS)]
        for one in attackers:
            one.sendall(b"GET /v1/health HTTP/1.1\r\nX: ")
        over = threading.Event()

        def drip() -> None:
            while not over.wait(1):
                for number, one in enumerate(attackers):
                    try:
                        one.sendall(b"x")
                    except OSError:  # cut off; it comes back
                        one.close()
                        attackers[number] = connect(self.port)
                        attackers[number].sendall(b"GET / HTTP/1.1\r\nX: ")
        dripper = threading.Thread(target=drip)
        dripper.start()
        try:
            longest = self.probe_for(5)
        finally:
            over.set()
            dripper.join()
            for one in attackers:
                one.close()
        self.report(f"{ATTACKERS} attackers, a byte a second each: longest answer {longest * 1000:.1f} ms")

    def test_more_connections_than_there_is_room_for(self) -> None:
        before = self.server.memory()
        attackers = [connect(self.port) for _ in range(300)]
        for number, one in enumerate(attackers):
            with contextlib.suppress(OSError):
                one.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 60000 if number % 2 else b"")
        longest = self.probe_for(3)
        self.report(f"300 connections: longest answer {longest * 1000:.1f} ms, memory grew by "
                    f"{(self.server.memory() - before) / MIB:.2f} MiB")
        self.assertLess(self.server.memory() - before, 16 * MIB)
        for one in attackers:
            one.close()

    def test_connect_storm(self) -> None:
        over, made = threading.Event(), [0] * 4

        def storm(number: int) -> None:
            # Each from an address of its own: a fast machine uses up all ports of one within a second, and
            # for as long nobody else connects from there.
            while not over.is_set():
                try:
                    live_server.connect_from(f"127.0.0.{number + 2}", self.port, LIMIT_S).close()
                    made[number] += 1
                except OSError:
                    over.wait(0.01)
        stormers = [threading.Thread(target=storm, args=(number,)) for number in range(len(made))]
        for each in stormers:
            each.start()
        longest, end = 0.0, time.monotonic() + 2
        try:
            while time.monotonic() < end:
                # Whoever has sent nothing yet makes room for the younger ones, and comes again.
                longest = max(longest, live_server.wait_until(self.answers, LIMIT_S, "health is answered"))
                time.sleep(0.1)
        finally:
            over.set()
            for each in stormers:
                each.join()
        self.assertGreater(sum(made), 0)
        self.report(f"longest answer {longest * 1000:.1f} ms among {sum(made)} connections")

    def test_answers_that_nobody_reads(self) -> None:
        before = self.server.memory()
        request = b"GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        attackers = []
        for _ in range(ATTACKERS):
            one = connect(self.port)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.send(request * 200)
            attackers.append(one)
        longest = self.probe_for(3)
        self.report(f"longest answer {longest * 1000:.1f} ms, memory grew by "
                    f"{(self.server.memory() - before) / MIB:.2f} MiB")
        self.assertLess(self.server.memory() - before, 32 * MIB)
        for one in attackers:
            one.close()

    def test_no_descriptors_left(self) -> None:
        # Room for a few connections more; the rest waits in the kernel, and is served when there is room.
        before = self.server.limit_descriptors(self.server.descriptors() + 8)
        try:
            attackers = [connect(self.port) for _ in range(30)]
            time.sleep(0.5)
            for one in attackers:
                one.close()
            live_server.wait_until(self.answers, LIMIT_S,
                                   "the endpoint answers when descriptors are there again")
        finally:
            self.server.limit_descriptors(before)

    def load(self, seconds: float) -> list[float]:
        """Gets of 64 KiB by one client, each of which must be answered: their times."""
        times: list[float] = []
        with self.server.client() as client:
            for number in range(64):
                client.put(b"load %d" % number, bytes([number]) * 65536)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                number = len(times) % 64
                begin = time.perf_counter()
                value = client.get(b"load %d" % number)
                times.append(time.perf_counter() - begin)
                assert value is not None and value.data[0] == number
        return times

    def load_under_attack(self, seconds: float) -> tuple[list[float], int]:
        """The same while slow clients are there; also how often they scraped."""
        attacker = subprocess.Popen([sys.executable, "-c", SLOW_CLIENTS, str(self.port), str(ATTACKERS)],
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self.assertEqual(attacker.stdout.readline(), b"slow\n")
            times = self.load(seconds)
            return times, int(attacker.communicate(timeout=LIMIT_S)[0])
        finally:
            attacker.kill()
            attacker.wait()

    def test_the_data_path_while_slow_clients_and_a_scrape_every_second_are_there(self) -> None:
        # In turns, so that other work on the machine meets both alike.
        quiet: list[float] = []
        busy: list[float] = []
        scrapes = 0
        for _ in range(ROUNDS):
            quiet += self.load(LOAD_S / ROUNDS)
            times, count = self.load_under_attack(LOAD_S / ROUNDS)
            busy += times
            scrapes += count
        self.assertGreaterEqual(scrapes, ROUNDS)
        share = percentile(busy, 0.99) / percentile(quiet, 0.99)
        for name, times in (("alone", quiet), (f"with {ATTACKERS} slow clients and {scrapes} scrapes", busy)):
            self.report(f"gets of 64 KiB {name}: {len(times) / LOAD_S:.0f}/s, p50 "
                        f"{percentile(times, 0.5) * 1e6:.0f} us, p99 {percentile(times, 0.99) * 1e6:.0f} us")
        self.report(f"p99 x {share:.2f}")


# A process of its own: it must not share the interpreter with the client whose times are taken.
SLOW_CLIENTS = """
import select, socket, sys, time
port, count = int(sys.argv[1]), int(sys.argv[2])
def slow():
    one = socket.create_connection(("127.0.0.1", port), timeout=60)
    one.sendall(b"GET /v1/metrics HTTP/1.1\\r\\nX: ")
    return one
def scrape():
    data = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        one.sendall(b"GET /v1/metrics HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n")
        while more := one.recv(65536):
            data += more
    return data.startswith(b"HTTP/1.1 200 ")
all_of_them, scrapes = [slow() for _ in range(count)], 0
print("slow", flush=True)
while True:
    scrapes += scrape()
    if select.select([sys.stdin], [], [], 1)[0]:
        break
    for number, one in enumerate(all_of_them):
        try:
            one.sendall(b"x")
        except OSError:
            one.close()
            all_of_them[number] = slow()
print(scrapes, flush=True)
"""


class Https(Attack):
    """The same over TLS, and what is wrong with TLS itself."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.keeper = tempfile.TemporaryDirectory(prefix="memkv-tls-")
        directory = pathlib.Path(cls.keeper.name)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes",
                        "-keyout", directory / "key", "-out", directory / "pem", "-days", "2",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
                       check=True, capture_output=True)
        cls.network = f"tls_cert: {directory / 'pem'}, tls_key: {directory / 'key'}"
        super().setUpClass()
        cls.trust = ssl.create_default_context(cafile=directory / "pem")

    @classmethod
    def tearDownClass(cls) -> None:
        super().tearDownClass()
        cls.keeper.cleanup()

    @property
    def tls(self) -> Https:
        return self

    def wrap_socket(self, plain: socket.socket) -> ssl.SSLSocket:
        """A handshake with the server's name."""
        return self.trust.wrap_socket(plain, server_hostname="localhost")

    def secure(self) -> ssl.SSLSocket:
        """A connection after its handshake, which is late only where the machine stood still."""
        while True:
            begin = time.monotonic()
            try:
                return self.wrap_socket(connect(self.port))
            except OSError:
                if time.monotonic() - begin < STALLED_S:
                    raise

    def hello(self) -> bytes:
        """What a client begins a handshake with."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        machine = self.trust.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with contextlib.suppress(ssl.SSLWantReadError):
            machine.do_handshake()
        return outgoing.read()

    def test_handshakes_that_are_never_finished(self) -> None:
        hello = self.hello()
        attackers = [connect(self.port) for _ in range(ATTACKERS)]
        for number, one in enumerate(attackers):
            one.sendall(hello[: (0, 1, 5, len(hello) // 2, len(hello))[number % 5]])
        begin = time.monotonic()
        longest = self.probe_for(2)
        for one in attackers:
            read_all(one)
            one.close()
        took = time.monotonic() - begin
        self.report(f"longest answer {longest * 1000:.1f} ms, all closed after {took:.1f} s")

    def test_a_handshake_that_trickles(self) -> None:
        hello = self.hello()
        with connect(self.port) as one:
            begin, at = time.monotonic(), 0
            with contextlib.suppress(ConnectionError):
                for at in range(len(hello)):
                    one.sendall(hello[at : at + 1])
                    if select.select([one], [], [], 0.2)[0]:
                        break
            took = time.monotonic() - begin
        self.assertLess(at, len(hello) - 1, "the handshake came to its end")
        self.report(f"cut after {took:.1f} s")

    def test_slow_requests_behind_a_handshake(self) -> None:
        attackers = []
        for _ in range(ATTACKERS):
            one = self.secure()
            with contextlib.suppress(OSError):  # late, on a machine that stood still
                one.sendall(b"GET /v1/health HTTP/1.1\r\nX: ")
            attackers.append(one)
        longest = self.probe_for(4)
        for one in attackers:
            self.assertIn(b"408", read_all(one)[:20] or b"408")
            one.close()
        self.report(f"longest answer {longest * 1000:.1f} ms")

    def test_endless_header(self) -> None:
        before, taken = self.server.memory(), 0
        with self.secure() as one:
            with contextlib.suppress(OSError):
                one.sendall(b"GET / HTTP/1.1\r\nX: ")
                while taken < 64 * MIB:
                    one.sendall(b"x" * 65536)
                    taken += 65536
        self.assertLess(taken, 8 * MIB)
        self.assertLess(self.server.memory() - before, 8 * MIB)

    def test_garbage(self) -> None:
        for garbage in (b"\x16" + os.urandom(5000), b"\x16\x03\x01\xff\xff" + os.urandom(70000),
                        b"\x16\x03\x01\x00\x05\x01\x00\xff\xff\xff", b"\x16" * 100000):
            with connect(self.port) as one:
                with contextlib.suppress(ConnectionError):
                    one.sendall(garbage)
                self.assertNotIn(b"HTTP/", read_all(one))

    def test_plain_http_is_told_so(self) -> None:
        answer = exchange(self.port, b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertEqual(status_of(answer), 400)
        self.assertIn(b"https://", answer)

    def test_a_connection_that_ends_in_the_middle(self) -> None:
        hello = self.hello()
        for number in range(100):
            with connect(self.port) as one:
                one.sendall(hello[: number * len(hello) // 100])


if __name__ == "__main__":
    unittest.main()
