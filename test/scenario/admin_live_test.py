"""memkv admin against servers that run: every row of its table, with one, three and five of them, one of
which is down, answers garbage, or never answers; and over HTTPS.

admin_live_test.py MEMKV
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import fake_admin

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))

from development_license import environment as licensed  # noqa: E402
from free_ports import free_port  # noqa: E402

MEMKV = os.path.abspath(sys.argv[1])
KEY = os.urandom(32).hex()
ENVIRONMENT = licensed(MEMKV)
ROWS = (
    ("health",),
    ("ready",),
    ("status",),
    ("status", "--verbose"),
    ("status", "--json"),
    ("drives", "failed"),
    ("drives", "failed", "--json"),
)
TIMEOUT_MS, MARGIN_S = 2_000, 5.0
checks = 0


def expect(condition, what):
    global checks
    checks += 1
    if not condition:
        sys.exit(f"admin_live_test: {what}")


class Server:
    """In memory mode, on the loopback interface."""

    def __init__(self, folder, name, network=""):
        self.port = free_port()
        self.scheme = "https" if network else "http"
        self.url = f"{self.scheme}://127.0.0.1:{self.port + 1}"
        self.config = os.path.join(folder, f"{name}.yaml")
        self.log_path = os.path.join(folder, f"{name}.log")
        with open(self.config, "w", encoding="ascii") as file:
            file.write(
                f"network:\n  address: 127.0.0.1:{self.port}\n{network}"
                "memory: { max_size: 64 MiB }\n"
                "storage: { mode: memory, drives: [ { media: memory, max_size: 128 MiB } ] }\n"
            )
        self.start()

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [MEMKV, "start", "--config", self.config, "--log-file", "none"],
                env={**ENVIRONMENT, "MEMKV_AUTH_KEY": KEY},
                stdout=log,
                stderr=log,
            )

    def wait_until_ready(self, *flags):
        end = time.monotonic() + 30
        while admin("ready", "-s", self.url, *flags)[0] != 0:
            alive = self.process.poll() is None and time.monotonic() < end
            expect(alive, f"{self.url} did not start\n{self.log()}")
            time.sleep(0.05)
        expect(self.process.poll() is None, f"somebody else answers at {self.url}\n{self.log()}")

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def stop(self):
        self.process.terminate()
        code = self.process.wait(timeout=30)
        expect(code == 0, f"{self.url} ended with {code}\n{self.log()}")

    def discard(self):
        """However it is: what failed before is what the person reads."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def admin(*words, **environment):
    begin = time.monotonic()
    done = subprocess.run(
        [MEMKV, "admin", *words],
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = f"memkv admin {' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.returncode, done.stdout, done.stderr, time.monotonic() - begin, said


def put_blocks(server, count):
    for number in range(count):
        subprocess.run(
            [MEMKV, "client", "put", f"block-{number}", "-s", f"127.0.0.1:{server.port}"],
            env={**ENVIRONMENT, "MEMKV_AUTH_KEY": KEY},
            input=bytes(5000),
            check=True,
            timeout=60,
        )


def every_row(servers):
    """All of them well."""
    urls = ",".join(each.url for each in servers)
    several = len(servers) > 1
    for row in ROWS:
        code, out, err, _, said = admin(*row, MEMKV_SERVERS=urls)
        expect(code == 0 and err == "", said)
        places = [out.find(each.url) for each in servers] if several else []
        expect(-1 not in places and places == sorted(places), f"in the order of the list\n{said}")
    _, out, _, _, said = admin("health", MEMKV_SERVERS=urls)
    lines = [line.split() for line in out.splitlines()[1:]]
    expect(lines == [[each.url, "healthy", "1/1", "inactive"] for each in servers], said)
    _, out, _, _, said = admin("ready", MEMKV_SERVERS=urls)
    expect([line.split() for line in out.splitlines()[1:]] == [[each.url, "ready"] for each in servers], said)
    _, out, _, _, said = admin("status", MEMKV_SERVERS=urls)
    expect((f"{len(servers)} of {len(servers)} answered" in out) == several, said)
    _, out, _, _, said = admin("status", "--verbose", MEMKV_SERVERS=urls)
    for part in ("uptime", "memory pool    [", "RDMA", "blocks", "drive-0", "listener", "running", "online"):
        expect(out.lower().count(part.lower()) >= len(servers), f"{part} is shown for every server\n{said}")
    _, out, _, _, said = admin("status", "--json", MEMKV_SERVERS=urls)
    documents = re.split(r"(?m)^---- \S+ -+\n", out)[1:] if several else [out]
    ports = [json.loads(each)["address"] for each in documents]
    expect(ports == [f"127.0.0.1:{each.port}" for each in servers], said)
    _, out, _, _, said = admin("drives", "failed", "--json", MEMKV_SERVERS=urls)
    lists = re.split(r"(?m)^---- \S+ -+\n", out)[1:] if several else [out]
    expect([json.loads(each) for each in lists] == [[]] * len(servers), said)
    metrics_row(servers, urls)


def metrics_row(servers, urls):
    """What is printed is what the endpoint says, whatever that is."""
    wanted = []
    for each in servers:
        try:
            with urllib.request.urlopen(f"{each.url}/v1/metrics", timeout=10) as answer:
                wanted.append(names_of(answer.read().decode()))
        except urllib.error.HTTPError as answer:
            wanted.append(answer.code)
    code, out, err, _, said = admin("metrics", MEMKV_SERVERS=urls)
    if any(isinstance(each, int) for each in wanted):
        expect(code == 1 and all(f"{each.url}: HTTP {w}" in err for each, w in zip(servers, wanted)), said)
        return
    expect(code == 0 and err == "", said)
    texts = re.split(r"(?m)^# ---- \S+ -+\n", out)[1:] if len(servers) > 1 else [out]
    expect([names_of(text) for text in texts] == wanted and all(wanted), said)


def names_of(exposition):
    """The families, which do not change between two looks."""
    return sorted(set(re.findall(r"(?m)^# TYPE (\S+)", exposition)))


def one_is_missing(servers, stranger_url, part):
    """Everybody else is shown, the stranger is one sentence, and the exit code is 1."""
    urls = [each.url for each in servers]
    urls.insert(len(urls) // 2, stranger_url)
    for row in ROWS:
        code, out, err, seconds, said = admin(*row, "-s", ",".join(urls), "--timeout-ms", str(TIMEOUT_MS))
        expect(code == 1 and err.count("\n") == 1 and f"memkv: {stranger_url}: " in err and part in err, said)
        expect(all(each.url in out for each in servers), said)
        expect(seconds < TIMEOUT_MS / 1000 + MARGIN_S, f"one deadline in all: {seconds:.1f} s\n{said}")


def data_ports(servers):
    code, _, err, seconds, said = admin("status", MEMKV_SERVERS=f"127.0.0.1:{servers[0].port}")
    expect(code == 1 and "data port" in err and f"{servers[0].port + 1}" in err and seconds < MARGIN_S, said)


def blocks_are_counted(server):
    put_blocks(server, 3)
    # A report may be a moment old.
    end = time.monotonic() + 10
    _, out, _, _, said = admin("status", "--json", "-s", server.url)
    while json.loads(out)["storage"]["blocks_total"] != 3 and time.monotonic() < end:
        time.sleep(0.1)
        _, out, _, _, said = admin("status", "--json", "-s", server.url)
    expect(json.loads(out)["storage"]["blocks_total"] == 3, said)
    _, out, _, _, said = admin("status", "-s", server.url)
    expect(" 3 " in out.splitlines()[1], said)


def resets(servers):
    """A drive in memory has nothing to reset; those that have are in the tests of the fleet."""
    code, _, err, _, said = admin("drives", "reset", "0", "-s", servers[0].url)
    expect(code == 1 and "HTTP 409" in err, said)
    code, _, err, _, said = admin("drives", "reset", "9", "--secure", "-s", servers[0].url)
    expect(code == 1 and "HTTP 404" in err, said)
    code, _, err, _, said = admin(
        "drives", "reset", "0", MEMKV_SERVERS=",".join(each.url for each in servers[:2])
    )
    expect(code == 1 and "exactly one server" in err, said)


def encrypted(folder):
    certificate, private = os.path.join(folder, "tls.pem"), os.path.join(folder, "tls.key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        + ["-days", "2", "-subj", "/CN=memkv", "-addext", "subjectAltName=IP:127.0.0.1"]
        + ["-keyout", private, "-out", certificate],
        check=True,
        capture_output=True,
    )
    server = Server(folder, "tls", f"  tls_cert: {certificate}\n  tls_key: {private}\n")
    try:
        server.wait_until_ready("--ca-file", certificate)
        for row in ROWS:
            code, _, err, _, said = admin(*row, "-s", server.url, "--ca-file", certificate)
            expect(code == 0 and err == "", said)
        code, _, err, _, said = admin("health", "-s", server.url)
        expect(code == 1 and "certificate is refused" in err, said)
        code, _, _, _, said = admin("health", "-s", server.url, "--insecure")
        expect(code == 0, said)
        code, _, err, _, said = admin("health", "-s", f"127.0.0.1:{server.port + 1}", "--timeout-ms", "4000")
        expect(code == 1 and err.count("\n") == 1, said)
        server.stop()
    finally:
        server.discard()


def main():
    with tempfile.TemporaryDirectory() as folder:
        servers = [Server(folder, f"server{number}") for number in range(5)]
        try:
            for each in servers:
                each.wait_until_ready()
            for count in (1, 3, 5):
                every_row(servers[:count])
            blocks_are_counted(servers[0])
            data_ports(servers)
            resets(servers)
            garbage = fake_admin.Listener(fake_admin.sends(fake_admin.http(200, b"<html>")))
            silent = fake_admin.Listener(fake_admin.says_nothing)
            down = servers.pop()
            down.stop()
            for count in (0, 2, 4):
                one_is_missing(servers[:count], down.url, "Connection refused")
                one_is_missing(servers[:count], garbage.url, "")
            one_is_missing(servers, silent.url, "no answer within 2 s")
            garbage.close()
            silent.close()
            encrypted(folder)
            for each in servers:
                each.stop()
        finally:
            for each in servers:
                each.discard()
    print(f"memkv admin on running servers: {checks} checks passed")


if __name__ == "__main__":
    main()
