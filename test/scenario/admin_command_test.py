"""memkv admin against endpoints that are well, ill, or something else: tables, exit codes, deadlines.

admin_command_test.py MEMKV
"""

import hashlib
import hmac
import json
import os
import pty
import re
import select
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

import fake_admin
from fake_admin import Endpoint, Listener, http

MEMKV = os.path.abspath(sys.argv[1])
KEY = os.urandom(32).hex()
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("MEMKV_")}
QUESTIONS = (
    ("health",),
    ("ready",),
    ("status",),
    ("status", "--verbose"),
    ("status", "--json"),
    ("metrics",),
    ("drives", "failed"),
    ("drives", "failed", "--json"),
)
MARGIN_S = 5.0  # what a loaded machine may add to a deadline
checks = 0


class Result:
    def __init__(self, words, code, out, err, seconds):
        self.words, self.code, self.out, self.err, self.seconds = words, code, out, err, seconds

    def __str__(self):
        said = f"{self.out[:3000]}\n{self.err[:3000]}"
        return f"memkv admin {self.words}: exit {self.code}, {self.seconds:.2f} s\n{said}"


def admin(*words, **environment):
    begin = time.monotonic()
    done = subprocess.run(
        [MEMKV, "admin", *words],
        env={**ENVIRONMENT, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    seconds = time.monotonic() - begin
    return Result(words, done.returncode, done.stdout.decode(), done.stderr.decode(), seconds)


def expect(condition, what, result):
    global checks
    checks += 1
    if not condition:
        sys.exit(f"admin_command_test: {what}\n{result}")


def errors_of(result):
    """The sentences, by the server's address; a sentence about no server under ''."""
    found = {}
    for line in result.err.splitlines():
        match = re.fullmatch(r"memkv: (https?://\S+:\d+): (.+)", line)
        if match:
            found[match[1]] = match[2]
        else:
            expect(line.startswith("memkv: "), "an error is one line that begins with memkv:", result)
            found.setdefault("", line)
    return found


def listed(servers):
    return ",".join(each.url for each in servers)


def expect_one_fault(result, server, part, what):
    errors = errors_of(result)
    expect(result.code == 1, f"{what}: exit code", result)
    expect(list(errors) == [server.url], f"{what}: one sentence, about that server", result)
    expect(part in errors[server.url], f'{what}: the sentence says "{part}"', result)


def each_row_with_one_server():
    server = Endpoint(7)
    result = admin("health", "--servers", server.address)
    expect(result.code == 0 and result.err == "", "health", result)
    lines = result.out.splitlines()
    expect(lines[0].split() == ["SERVER", "STATUS", "DRIVES", "RDMA"], "the head of the table", result)
    expect(lines[1].split() == [server.url, "healthy", "12/12", "active"], "the row of the table", result)
    result = admin("ready", "-s", server.address)
    expect(result.code == 0 and result.out.splitlines()[1].split() == [server.url, "ready"], "ready", result)
    result = admin("status", "-s", server.address)
    expect(
        result.code == 0 and len(result.out.splitlines()) == 2, "status of one server has no total", result
    )
    for part in ("1/1", "1.00 TiB", "931.3 GiB", "232.8 GiB", "25.0 %", "1007", "2 h 46 min", "RELEASE.7"):
        expect(part in result.out, f"status shows {part}", result)
    result = admin("status", "--verbose", "-s", server.address)
    for part in (
        "2 h 46 min",
        "RELEASE.7",
        "Enterprise, 30 days left",
        "[##########..........]  512.0 MiB of 1.00 GiB",
        "3 connections",
        "/dev/nvme7n1 (Fake)",
        "drive-0  running",
        "1007",
        "[#####...............]",
    ):
        expect(part in result.out, f"status --verbose shows {part}", result)
    expect(result.code == 0, "status --verbose", result)
    raw = server.answers["/v1/status"].split(b"\r\n\r\n")[1].decode()
    result = admin("status", "--json", "-s", server.address)
    expect(result.code == 0 and result.out == raw + "\n", "status --json is the document", result)
    result = admin("metrics", "-s", server.address)
    expect(result.code == 0 and result.out == fake_admin.METRICS % 7, "metrics are verbatim", result)
    result = admin("drives", "failed", "-s", server.address)
    row = "2 - 3 2025-02-06 00:00:00 UTC 2025-02-06 02:46:40 UTC no -"
    expect(result.code == 0 and " ".join(result.out.splitlines()[1].split()) == row, "drives failed", result)
    result = admin("drives", "failed", "--json", "-s", server.address)
    expect(result.code == 0 and json.loads(result.out) == fake_admin.FAILED, "drives failed --json", result)
    methods = {(method, target) for method, target, _ in server.requests}
    paths = ("/v1/health", "/v1/ready", "/v1/status", "/v1/metrics", "/v1/drives/failed")
    expect(methods == {("GET", path) for path in paths}, "the requests are those of the page", result)
    expect(server.requests[0][2]["host"] == server.address, "the Host header", result)
    server.close()


def where_servers_come_from():
    one, other = Endpoint(1), Endpoint(2)
    result = admin("health", MEMKV_SERVERS=f" {one.address} ,, http://{other.address}/,")
    expect(
        result.code == 0
        and [line.split()[0] for line in result.out.splitlines()[1:]] == [one.url, other.url],
        "the variable, with blanks and empty entries",
        result,
    )
    result = admin("--servers", one.address, "health", MEMKV_SERVERS=other.address)
    expect(one.url in result.out and other.url not in result.out, "the flag wins over the variable", result)
    for environment in ({"MEMKV_SERVERS": ",,"}, {"MEMKV_SERVERS": " "}, {"MEMKV_SERVERS": ""}):
        result = admin("health", **environment)
        expect(
            result.code == 1 and "no servers were configured" in result.err and not result.out,
            "a list of nothing",
            result,
        )
    result = admin("health", "--servers", ",", MEMKV_SERVERS=one.address)
    expect(result.code == 1 and "no servers were configured" in result.err, "a flag of nothing", result)
    for wrong in ("ftp://a", "a/b", "u:p@a", "::1", "a:0", "[a]"):
        result = admin("health", "--servers", wrong)
        expect(
            result.code == 1 and result.err.count("\n") == 1 and not result.out, f"{wrong} is refused", result
        )
    result = admin("health", "--servers", one.address, "--timeout-ms", "0")
    expect(result.code == 1 and "--timeout-ms" in result.err, "a deadline of nothing", result)
    # The fallback: whatever answers there, or nobody, it is that address that is asked.
    result = admin("health")
    expect("http://127.0.0.1:9901" in result.out, "the fallback", result)
    result = admin("health", "-s", f"localhost:{one.port}")
    expect(result.code == 0, "a name", result)
    result = admin("health", "-s", "no-such-host.invalid", "--timeout-ms", "3000")
    expect(
        result.code == 1 and "no-such-host.invalid" in result.err and result.seconds < 3 + MARGIN_S,
        "a name that nobody has",
        result,
    )
    one.close()
    other.close()
    if socket.has_ipv6:
        try:
            server = Endpoint(3, family=socket.AF_INET6)
        except OSError:
            return
        result = admin("health", "-s", server.address)
        expect(result.code == 0 and server.url in result.out, "IPv6", result)
        server.close()


def several_servers():
    for count in (1, 3, 5):
        servers = [Endpoint(number) for number in range(count)]
        for question in QUESTIONS:
            result = admin(*question, "--servers", listed(servers))
            expect(result.code == 0 and result.err == "", f"{question} of {count} servers", result)
            places = [result.out.find(each.url) for each in servers] if count > 1 else []
            expect(places == sorted(places) and -1 not in places, "in the order of the list", result)
        if count > 1:
            result = admin("status", "-s", listed(servers))
            total = result.out.splitlines()[-1]
            expect(total.startswith("total") and f"{count} of {count} answered" in total, "the total", result)
            expect(
                f"{count}.00 TiB" in total and str(sum(1000 + n for n in range(count))) in total,
                "sums",
                result,
            )
            result = admin("status", "--json", "-s", listed(servers))
            pieces = re.split(r"(?m)^---- (\S+) -+\n", result.out)[1:]
            expect(pieces[::2] == [each.url for each in servers], "labelled rules", result)
            versions = [json.loads(piece)["version"] for piece in pieces[1::2]]
            expect(versions == [f"RELEASE.{n}" for n in range(count)], "one document a server", result)
            result = admin("metrics", "-s", listed(servers))
            pieces = re.split(r"(?m)^# ---- (\S+) -+\n", result.out)[1:]
            expect(pieces[::2] == [each.url for each in servers], "rules that are comments", result)
            expect(pieces[1::2] == [fake_admin.METRICS % n for n in range(count)], "verbatim", result)
            result = admin("drives", "failed", "--json", "-s", listed(servers))
            pieces = re.split(r"(?m)^---- (\S+) -+\n", result.out)[1:]
            expect(all(json.loads(piece) == fake_admin.FAILED for piece in pieces[1::2]), "arrays", result)
        # The same with one that is down.
        down = servers[count // 2]
        down.close()
        for question in QUESTIONS:
            result = admin(*question, "--servers", listed(servers))
            expect_one_fault(result, down, "Connection refused", f"{question} with one down")
            others = [each for each in servers if each is not down]
            if count > 1:
                expect(all(each.url in result.out for each in others), "the others are shown", result)
        if count > 1:
            result = admin("status", "-s", listed(servers))
            expect(f"{count - 1} of {count} answered" in result.out, "the total says who is missing", result)
        for each in servers:
            each.close()


def states_of_a_server():
    degraded = {**fake_admin.HEALTH, "status": "degraded", "reasons": ["drive 2 is \x1b[31moffline"]}
    unhealthy = {**fake_admin.HEALTH, "status": "unhealthy", "drives_online": 0}
    server = Endpoint()
    server.answers["/v1/health"] = http(200, degraded)
    result = admin("health", "-s", server.address)
    expect(result.code == 0 and "degraded" in result.out, "degraded is no error", result)
    expect("drive 2 is ?[31moffline" in result.out, "the reason is shown and is printable", result)
    server.answers["/v1/health"] = http(503, unhealthy)
    result = admin("health", "-s", server.address)
    expect("unhealthy" in result.out and "0/12" in result.out, "unhealthy is shown", result)
    expect_one_fault(result, server, "unhealthy", "unhealthy is an error")
    server.answers["/v1/health"] = http(503, {"error": "drive-1 has not answered", "silent": ["drive-1"]})
    expect_one_fault(admin("health", "-s", server.address), server, "drive-1", "a stuck actor")
    server.answers["/v1/health"] = http(200, {"status": "healthy"})
    expect(admin("health", "-s", server.address).code == 0, "a server that says only its status", None)
    server.answers["/v1/ready"] = http(503, "no drive is online\n", "text/plain")
    result = admin("ready", "-s", server.address)
    expect("NOT READY" in result.out, "not ready is flagged", result)
    expect_one_fault(result, server, "not ready: no drive is online", "not ready is an error")
    server.answers["/v1/ready"] = http(503, {"error": "no drive is online"})
    expect_one_fault(admin("ready", "-s", server.address), server, "no drive is online", "not ready, in JSON")
    server.answers["/v1/ready"] = http(200, "false", "text/plain")
    expect_one_fault(admin("ready", "-s", server.address), server, '"ok"', "another word than ok")
    partial = {**fake_admin.status_document(5), "error": "evictor has not answered", "silent": ["evictor"]}
    server.answers["/v1/status"] = http(503, partial)
    for form in ((), ("--verbose",), ("--json",)):
        result = admin("status", *form, "-s", server.address)
        expect("RELEASE.5" in result.out, "what is known beside the error is shown", result)
        expect_one_fault(result, server, "evictor", "a status without an actor")
    server.answers["/v1/drives/failed"] = http(200, [])
    result = admin("drives", "failed", "-s", server.address)
    expect(result.code == 0 and result.out == "no drive has failed\n", "no failed drive", result)
    server.close()


def strangers_among_servers():
    well = Endpoint(1)
    for name, serve, part in fake_admin.strangers():
        stranger = Listener(serve)
        questions = QUESTIONS if "endless" not in name else (("health",), ("metrics",))
        for question in questions:
            result = admin(*question, "--servers", f"{stranger.url},{well.url}")
            expect_one_fault(result, stranger, part, f"{question} of one that {name}")
            expect(well.url in result.out, f"{question}: the other is shown all the same", result)
            expect(result.seconds < 5 + MARGIN_S, "it takes no longer than the deadline", result)
        stranger.close()
    for name, body in fake_admin.wrong_documents():
        server = Listener(fake_admin.sends(http(200, body)))
        for question in (
            ("health",),
            ("status",),
            ("status", "--json"),
            ("status", "--verbose"),
            ("drives", "failed"),
            ("drives", "failed", "--json"),
            ("ready",),
        ):
            result = admin(*question, "--servers", f"{well.url},{server.url}")
            expect_one_fault(result, server, "", f"{question} answered by {name}")
            expect(well.url in result.out, f"{question}: the other is shown all the same", result)
            expect(len(result.out) < 20_000, "garbage is not printed", result)
        server.close()
    for body in (b"", b"<html>", b"\x00\x01", b"{}"):
        server = Listener(fake_admin.sends(http(200, body)))
        result = admin("metrics", "--servers", f"{server.url},{well.url}")
        expect_one_fault(result, server, "no metrics", "metrics that are none")
        server.close()
    well.close()


def one_deadline_in_all():
    slow = fake_admin.slow_ones()
    full = socket.socket()  # a queue that nobody empties: connecting itself does not end
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(full.getsockname())
        fillers.append(filler)
    time.sleep(0.1)
    queue = f"http://127.0.0.1:{full.getsockname()[1]}"
    listeners = [(Listener(serve), part) for _, serve, part in slow]
    wells = [Endpoint(n) for n in range(3)]
    tls = Listener(lambda *_: None)  # accepts and never shakes hands
    tls.attend = lambda connection: tls.closed.wait(60)
    tls_url = f"https://{tls.address}"
    urls = [wells[0].url, *(each.url for each, _ in listeners), wells[1].url, queue, tls_url, wells[2].url]
    for question in QUESTIONS:
        # Long enough for those that are well to answer on a loaded machine.
        result = admin(*question, "--servers", ",".join(urls), "--timeout-ms", "2000")
        errors = errors_of(result)
        expect(result.code == 1, "exit code", result)
        for each, part in listeners:
            expect(part in errors.get(each.url, ""), f"{question}: {part}", result)
        expect("within 2 s" in errors.get(queue, ""), f"{question}: nobody accepts", result)
        expect(
            "handshake did not end within 2 s" in errors.get(tls_url, ""),
            f"{question}: no handshake",
            result,
        )
        expect(set(errors) == set(urls) - {each.url for each in wells}, "those and no others", result)
        expect(all(each.url in result.out for each in wells), "the others are shown", result)
        expect(1.9 < result.seconds < 2 + MARGIN_S, "all of them cost one deadline", result)
    for each, _ in listeners:
        each.close()
    tls.close()
    # Hundreds of servers, none of which answers; and the deadline that holds when none is named.
    silent = Listener(fake_admin.says_nothing)
    many = ",".join(
        [f"127.0.0.{n}:{silent.port}" for n in range(1, 2)] + [f"h{n}.invalid" for n in range(200)]
    )
    result = admin("health", "--servers", many, "--timeout-ms", "1500")
    expect(result.code == 1 and len(errors_of(result)) == 201, "two hundred names", result)
    expect(result.seconds < 1.5 + MARGIN_S, "two hundred names cost one deadline", result)
    result = admin("health", "--servers", silent.address)
    expect(4.9 < result.seconds < 5 + MARGIN_S and "within 5 s" in result.err, "the default deadline", result)
    silent.close()
    for each in wells + fillers + [full]:
        each.close()
    everybody = [Endpoint(n) for n in range(100)]
    result = admin("status", "--servers", listed(everybody))
    expect(result.code == 0 and "100 of 100 answered" in result.out, "a hundred servers", result)
    for each in everybody:
        each.close()


def large_answers():
    document = fake_admin.status_document(1)
    document["filler"] = "x" * (15 << 20)
    body = json.dumps(document)
    server = Endpoint(answers={"/v1/status": http(200, body)})
    result = admin("status", "--json", "-s", server.address)
    expect(result.code == 0 and result.out == body + "\n", "15 MiB of status", None)
    server.answers["/v1/status"] = http(200, body + " " * (2 << 20))
    expect_one_fault(admin("status", "-s", server.address), server, "16 MiB", "17 MiB of status")
    text = "# a comment\n" + 'memkv_x{a="b"} 1\n' * 3_000_000
    server.answers["/v1/metrics"] = http(200, text, "text/plain")
    result = admin("metrics", "-s", server.address)
    expect(result.code == 0 and result.out == text, "50 MiB of metrics", None)
    server.answers["/v1/metrics"] = http(200, text + text, "text/plain")
    expect_one_fault(admin("metrics", "-s", server.address), server, "64 MiB", "100 MiB of metrics")
    server.close()


SERVER_ID = "0123456789abcdef" * 2


def check_signature(request, key):
    method, target, headers = request
    text = f"memkv admin request v2\n{method}\n{target}\n{hashlib.sha256(b'').hexdigest()}\n"
    text += f"{headers['x-memkv-time']}\n{headers['x-memkv-nonce']}\n"
    text += f"{SERVER_ID}\n"
    right = hmac.new(bytes.fromhex(key), text.encode(), hashlib.sha256).hexdigest()
    fresh = abs(int(headers["x-memkv-time"]) - time.time()) < 10
    return (
        fresh
        and re.fullmatch("[0-9a-f]{32}", headers["x-memkv-nonce"])
        and headers["x-memkv-server"] == SERVER_ID
        and headers["x-memkv-signature"] == right
    )


def resets_of_drives(folder):
    target = "/v1/drives/2/reset"
    begun = http(202, {"device_id": 2, "state": "resetting", "secure": False})
    looks = {"state": "online"}

    def status(_):
        document = fake_admin.status_document(server_id=SERVER_ID)
        device = document["storage"]["devices"][0]
        device.update(device_id=2, **looks)
        return http(200, document)

    server = Endpoint(answers={target: begun, target + "?secure=true": begun, "/v1/status": status})
    other = Endpoint()

    def posted():
        return [each for each in server.requests if each[0] == "POST"]

    result = admin("drives", "reset", "2", "-s", server.address)
    expect(result.code == 0 and "drive 2 was reset\n" in result.out, "a reset", result)
    expect(result.err == "", "nothing is drawn without a terminal", result)
    expect(posted()[-1][1] == target, "the request", result)
    expect("x-memkv-signature" not in posted()[-1][2], "without a key it is not signed", result)
    # What the drive is refused for is found out after the answer.
    problem = "/dev/x holds a file system (ext4)"
    for words in ((), ("--secure",)):
        looks = {"state": "offline", "reset_problem": problem}
        expect_one_fault(
            admin("drives", "reset", "2", *words, "-s", server.address),
            server,
            f"the reset of drive 2 did not end well: {problem}",
            "a drive that was refused",
        )
    looks = {"state": "resetting", "reset": {"secure": True, "done_bytes": 0, "total_bytes": 1 << 40}}
    result = admin("drives", "reset", "2", "--secure", "-s", server.address, MEMKV_AUTH_KEY=KEY)
    expect(
        result.code == 0
        and posted()[-1][1] == target + "?secure=true"
        and "is being reset and overwritten with zeros" in result.out,
        "secure, which goes on alone",
        result,
    )
    expect(check_signature(posted()[-1], KEY), "signed by the key of the environment", result)
    looks = {"state": "online"}
    config = os.path.join(folder, "client.yaml")
    with open(config, "w", encoding="ascii") as file:
        file.write(f"auth_key: {KEY}\nservers: [127.0.0.1:1]\n")
    admin("drives", "reset", "2", "-s", server.address, MEMKV_CONFIG=config)
    expect(check_signature(posted()[-1], KEY), "signed by the key of the file", result)
    nonces = [headers["x-memkv-nonce"] for _, _, headers in posted() if "x-memkv-nonce" in headers]
    expect(len(nonces) == len(set(nonces)) == 2, "a nonce is never used again", result)
    count = len(server.requests)
    for words, part in (
        (("2", "-s", f"{server.url},{other.url}"), "exactly one server"),
        (("x", "-s", "a"), "number"),
        (("-1", "-s", "a"), ""),
        (("4294967296", "-s", "a"), "number"),
        ((), "DEVICE_ID"),
    ):
        result = admin("drives", "reset", *words)
        expect(
            result.code == 1 and part in result.err and result.err.count("\n") == 1, f"reset {words}", result
        )
    result = admin(
        "drives", "reset", "2", "-s", server.address, MEMKV_CONFIG=os.path.join(folder, "none.yaml")
    )
    expect(result.code == 1 and "none.yaml" in result.err, "a file that is not there", result)
    result = admin("drives", "reset", "2", "-s", server.address, MEMKV_AUTH_KEY="12")
    expect(result.code == 1 and "64" in result.err, "a key that is none", result)
    expect(len(server.requests) == count and not other.requests, "nobody was asked", result)
    for code, error in (
        (409, "drive 2 is blacklisted: use memkv drive reset"),
        (404, "there is no drive 2"),
        (401, "this request must be signed"),
    ):
        server.answers[target] = http(code, {"error": error})
        expect_one_fault(
            admin("drives", "reset", "2", "-s", server.address), server, f"HTTP {code}: {error}", error
        )
    silent = Listener(fake_admin.says_nothing)
    result = admin("drives", "reset", "2", "-s", silent.address, "--timeout-ms", "300")
    expect_one_fault(result, silent, "may have begun", "a reset without an answer")
    # What is signed names its server; one that does not say who it is gets nothing signed.
    signed = {"MEMKV_AUTH_KEY": KEY}
    result = admin("drives", "reset", "2", "-s", silent.address, "--timeout-ms", "300", **signed)
    expect_one_fault(result, silent, "no answer within", "a server that does not say who it is")
    expect("may have begun" not in result.err, "nothing was asked for", result)
    for answer, part in (
        (http(200, fake_admin.status_document()), "which server it is"),
        (http(200, fake_admin.status_document(server_id="\x1b[31m")), "which server it is"),
        (http(200, b"garbage"), "JSON"),
        (http(404, {"error": "no such path"}), "HTTP 404: no such path"),
        (http(503, {"error": "stuck", "status": "unhealthy"}), "HTTP 503: stuck"),
    ):
        other.answers["/v1/status"] = answer
        result = admin("drives", "reset", "2", "-s", other.address, **signed)
        expect_one_fault(result, other, part, f"a reset of a server that says {part}")
    expect(all(each[0] == "GET" for each in other.requests), "nothing was signed for it", result)
    for each in (server, other, silent):
        each.close()


def on_terminal(*words, **environment):
    """What a command shows whose output is a terminal, and its exit code."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [MEMKV, "admin", *words],
        env={**ENVIRONMENT, "TERM": "xterm", **environment},
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown, end = b"", time.monotonic() + 60
    while time.monotonic() < end:
        if select.select([controller], [], [], 1)[0]:
            try:
                piece = os.read(controller, 4096)
            except OSError:
                break
            if not piece:
                break
            shown += piece
    os.close(controller)
    return Result(words, process.wait(timeout=30), shown.decode(), "", 0)


def terminals():
    nasty = fake_admin.status_document(1, version="\x9b31m\u202e")
    raw = json.dumps(nasty, ensure_ascii=False).encode()
    server = Endpoint(
        answers={
            "/v1/status": http(200, raw),
            "/v1/metrics": http(200, b'memkv_x{a="\x1b[2J"} 1\n', "text/plain"),
        }
    )
    result = on_terminal("health", "-s", server.address)
    expect("\x1b[32mhealthy\x1b[0m" in result.out, "colour on a terminal", result)
    result = on_terminal("health", "-s", server.address, NO_COLOR="1")
    expect("\x1b" not in result.out, "no colour with NO_COLOR", result)
    result = on_terminal("health", "-s", server.address, TERM="dumb")
    expect("\x1b" not in result.out, "no colour on a dumb terminal", result)
    expect("\x1b" not in admin("health", "-s", server.address).out, "no colour into a pipe", None)
    for words in (("status",), ("status", "--verbose"), ("status", "--json"), ("metrics",)):
        result = on_terminal(*words, "-s", server.address, NO_COLOR="1")
        expect(
            result.code == 0 and not set("\x1b\x9b\u202e") & set(result.out), f"{words} on a terminal", result
        )
    result = on_terminal("status", "--json", "-s", server.address)
    expect(json.loads(result.out) == nasty, "the same document on a terminal", result)
    result = admin("status", "--json", "-s", server.address)
    expect(result.out.encode() == raw + b"\n", "the bytes of the document in a pipe", result)
    server.close()


def progress_of_a_secure_reset():
    state = {"step": 0}
    begun = http(202, {"device_id": 0, "state": "resetting", "secure": True})

    def status(_):
        state["step"] += 1
        document = fake_admin.status_document()
        device = document["storage"]["devices"][0]
        if state["step"] <= 3:
            device["state"] = "resetting"
            total = 1 << 30
            device["reset"] = {"secure": True, "done_bytes": total // 4 * state["step"], "total_bytes": total}
        elif state["end"] is not None:
            device["state"], device["reason"] = state["end"], "a write failed"
            if state["end"] == "online":
                device["reason"], device["reset_problem"] = "", "it was interrupted"
        return http(503, {"error": "busy"}) if state["step"] == 2 else http(200, document)

    server = Endpoint(answers={"/v1/drives/0/reset?secure=true": begun, "/v1/status": status})
    state["end"] = None
    result = on_terminal("drives", "reset", "0", "--secure", "-s", server.address)
    expect(
        result.code == 0 and "256.0 MiB of 1.00 GiB" in result.out and "768.0 MiB" in result.out,
        "progress",
        result,
    )
    expect("drive 0 was reset and overwritten" in result.out, "the end is said", result)
    state["end"], state["step"] = "offline", 0
    result = on_terminal("drives", "reset", "0", "--secure", "-s", server.address)
    expect(
        result.code == 1 and "drive 0 is offline after the reset: a write failed" in result.out,
        "a failure",
        result,
    )
    state["end"], state["step"] = "online", 0
    result = on_terminal("drives", "reset", "0", "--secure", "-s", server.address)
    expect(
        result.code == 1
        and "the reset of drive 0 did not end well: it was interrupted" in result.out
        and "overwritten with zeros" not in result.out,
        "a drive that is online after a reset that failed",
        result,
    )
    server.close()


class Certificates:
    """A certificate that signed itself for 127.0.0.1 and localhost, and one for somebody else."""

    def __init__(self, folder):
        self.folder = folder
        for name, names in (("good", "IP:127.0.0.1,DNS:localhost"), ("other", "DNS:elsewhere.example")):
            subprocess.run(
                [
                    "openssl",
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                    "-nodes",
                    "-days",
                    "2",
                    "-subj",
                    f"/CN={name}",
                    "-addext",
                    f"subjectAltName={names}",
                    "-keyout",
                    self.path(name, "key"),
                    "-out",
                    self.path(name, "pem"),
                ],
                check=True,
                capture_output=True,
            )

    def path(self, name, kind):
        return os.path.join(self.folder, f"{name}.{kind}")

    def context(self, name="good"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path(name, "pem"), self.path(name, "key"))
        return context


def encrypted():
    server, plain = Endpoint(3, context=certificates.context()), Endpoint(4)
    for question in QUESTIONS:
        result = admin(*question, "-s", server.url, "--ca-file", certificates.path("good", "pem"))
        expect(result.code == 0, f"{question} over TLS", result)
    result = admin(
        "health", "-s", f"https://localhost:{server.port}", "--ca-file", certificates.path("good", "pem")
    )
    expect(result.code == 0, "by the name in the certificate", result)
    result = admin("health", "-s", server.url)
    expect_one_fault(result, server, "certificate is refused", "a certificate nobody knows")
    result = admin("health", "-s", server.url, "--ca-file", certificates.path("other", "pem"))
    expect_one_fault(result, server, "certificate is refused", "a certificate of another authority")
    result = admin("health", "-s", server.url, "--insecure")
    expect(result.code == 0, "--insecure", result)
    wrong = Endpoint(5, context=certificates.context("other"))
    result = admin("health", "-s", wrong.url, "--ca-file", certificates.path("other", "pem"))
    expect_one_fault(result, wrong, "certificate is refused", "a certificate for another address")
    result = admin("health", "-s", server.url, "--ca-file", "/does/not/exist")
    expect(result.code == 1 and "/does/not/exist" in result.err, "no such file", result)
    pipe = certificates.path("nobody_writes", "pem")
    os.mkfifo(pipe)
    result = admin("health", "-s", server.url, "--ca-file", pipe)
    expect(result.code == 1 and "no regular file" in result.err, "a pipe for a file", result)
    result = admin("health", "-s", f"http://{server.address}")
    expect(
        result.code == 1 and "write https://" in result.err or "data port" in result.err,
        "http to https",
        result,
    )
    result = admin("health", "-s", f"https://{plain.address}", "--insecure", "--timeout-ms", "1000")
    expect(result.code == 1 and result.err.count("\n") == 1, "https to http", result)
    cut = Listener(
        lambda _, c: (fake_admin.read_request(c), c.sendall(b"HTTP/1.1 200 OK\r\n\r\nok"), c.close()),
        context=certificates.context(),
    )
    result = admin("ready", "-s", cut.url, "--insecure")
    expect_one_fault(result, cut, "in the middle of the answer", "an end that TLS does not confirm")
    drip = Listener(
        fake_admin.drips(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"), context=certificates.context()
    )
    result = admin("ready", "-s", drip.url, "--insecure", "--timeout-ms", "700")
    expect_one_fault(result, drip, "had not ended after 0.7 s", "a byte a moment over TLS")
    for each in (server, plain, wrong, cut, drip):
        each.close()


def outputs_that_fail():
    server = Endpoint()
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [MEMKV, "admin", "metrics", "-s", server.address],
            env=ENVIRONMENT,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    expect(done.returncode == 1 and b"cannot be written" in done.stderr, "a full disk", done)
    server.close()


def main():
    global certificates
    threading.stack_size(512 << 10)
    with tempfile.TemporaryDirectory() as folder:
        certificates = Certificates(folder)
        for part in (
            each_row_with_one_server,
            where_servers_come_from,
            several_servers,
            states_of_a_server,
            strangers_among_servers,
            one_deadline_in_all,
            large_answers,
            terminals,
            progress_of_a_secure_reset,
            encrypted,
            outputs_that_fail,
        ):
            begin = time.monotonic()
            part()
            print(f"{part.__name__}: {time.monotonic() - begin:.1f} s", flush=True)
        resets_of_drives(folder)
    print(f"memkv admin: {checks} checks passed")


if __name__ == "__main__":
    main()
