"""A server that is told to use an RDMA device which this machine has not: it serves over TCP, says everywhere
why RDMA is not in use, and stops in order.

rdma_absent_test.py MEMKV    starts servers of its own, in memory and in file mode, on free ports
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))

from development_license import environment as licensed  # noqa: E402
from free_ports import free_port  # noqa: E402
from memkv_page_client import (  # noqa: E402
    Client,
    ConnectionLost,
    Opcode,
    RdmaAddress,
    Status,
    encode_attach,
)

MEMKV = os.path.abspath(sys.argv[1])
KEY = os.urandom(32)
# At most 15 letters, as names of devices have; no machine has it.
DEVICE = "memkv_absent_9"
# What is wrong depends on the machine: no device, another one, no library.
WHY = r"(?:This machine has no RDMA device|There is no RDMA device|RDMA needs)[^\n]+"
CAPABILITY_RDMA = 2
VALUE = bytes(range(256)) * 4096


def expect(condition, what, detail=""):
    if not condition:
        sys.exit(f"rdma_absent_test: {what}\n{detail}")


def expect_match(pattern, text, what):
    expect(re.search(pattern, text), f"{what} does not say {pattern}", text)


class Server:
    def __init__(self, folder, mode):
        self.port = free_port()
        self.config = os.path.join(folder, f"{mode}.yaml")
        self.log_path = os.path.join(folder, f"{mode}.log")
        self.environment = licensed(MEMKV, MEMKV_AUTH_KEY=KEY.hex())
        media = "memory" if mode == "memory" else os.path.join(folder, "drive")
        with open(self.config, "w", encoding="ascii") as file:
            file.write(
                f"network: {{ address: 127.0.0.1:{self.port} }}\n"
                "memory: { max_size: 64 MiB }\n"
                f"rdma: {{ device: {DEVICE}, num_worker_threads: 2 }}\n"
                f"storage: {{ mode: {mode}, drives: [ {{ media: {media}, max_size: 64 MiB }} ] }}\n"
            )
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [MEMKV, "start", "--config", self.config, "--log-file", "none"],
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def log(self):
        return pathlib.Path(self.log_path).read_text(encoding="utf-8")

    def connect(self):
        end = time.monotonic() + 30
        while True:
            try:
                return Client("127.0.0.1", self.port, KEY, timeout_s=30)
            except ConnectionLost:
                expect(self.process.poll() is None and time.monotonic() < end, "no start", self.log())
                time.sleep(0.05)

    def ask(self, path):
        """Status and text of an answer of the administration endpoint."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port + 1}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as problem:
            return problem.code, problem.read().decode()

    def run(self, *words):
        return subprocess.run(
            [MEMKV, *words], env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )


def serves_over_tcp(server):
    with server.connect() as client:
        expect(client.server.capabilities & CAPABILITY_RDMA == 0, "the greeting promises RDMA")
        client.put(b"block", VALUE)
        expect(bytes(client.get(b"block").data) == VALUE, "another value came back")
        attach = encode_attach(0, RdmaAddress(gid=bytes(10) + b"\xff\xff\x7f\x00\x00\x01", number=17))
        answer = client.wait(client.submit(Opcode.TcpAttach, attach))
        expect(answer.status == Status.Unsupported, "an attach is answered otherwise", answer.status)
        expect(bytes(client.get(b"block").data) == VALUE, "the connection did not go on")


def says_why(server):
    code, text = server.ask("/v1/health")
    health = json.loads(text)
    expect(code == 200 and health["status"] == "degraded", "the health is another", text)
    expect(health["rdma_active"] is False, "RDMA is said to be active", text)
    # One sentence a rail, and none about actors that come and go with each trial.
    expect(len(health["reasons"]) == 2, "there are other reasons", text)
    for reason in health["reasons"]:
        expect_match(f"^the RDMA device {DEVICE} is not in use: {WHY}", reason, "a reason")
    expect(server.ask("/v1/ready")[0] == 200, "it is not ready")

    status = json.loads(server.ask("/v1/status")[1])
    rdma = status["rdma"]
    expect((rdma["active"], rdma["connections"], rdma["sessions"]) == (False, 0, 0), "rdma", rdma)
    expect([each["rail"] for each in rdma["rails"]] == [0, 1], "there are other rails", rdma)
    for rail in rdma["rails"]:
        expect((rail["device"], rail["state"]) == (DEVICE, "offline"), "a rail is otherwise", rail)
        expect_match(f"^{WHY}", rail["reason"], "a rail")
    expect(all(each["alive"] for each in status["actors"]), "an actor is missing", status["actors"])

    metrics = server.ask("/v1/metrics")[1]
    for line in (
        "memkv_rdma_rails 2",
        "memkv_rdma_active 0",
        f'memkv_rdma_rail_up{{rail="0",device="{DEVICE}"}} 0',
        f'memkv_rdma_rail_up{{rail="1",device="{DEVICE}"}} 0',
    ):
        expect(f"\n{line}\n" in metrics, f"the metrics have no {line}", metrics)
    for line in re.findall(r"\nmemkv_actor_restarts_total.*", metrics):
        expect(line.endswith(" 0"), "an actor is said to be started anew", line)

    address = f"127.0.0.1:{server.port + 1}"
    table = server.run("admin", "status", "-s", address, "--verbose")
    expect(table.returncode == 0, "memkv admin status fails", table.stderr)
    expect_match(r"\n\s*rdma\s+inactive, 0 connections", table.stdout, "memkv admin status --verbose")
    expect_match(f"the RDMA device {DEVICE} is not in use: {WHY}", table.stdout, "memkv admin status")
    expect_match(r"degraded +1/1 +inactive", server.run("admin", "health", "-s", address).stdout, "health")

    doctor = server.run("doctor", "--config", server.config, "--log-file", "none")
    expect(doctor.returncode == 0, "the doctor sees a failure", doctor.stdout)
    expect_match(rf"\nwarning +rdma\.device +{DEVICE} +[^\n]*clients use TCP: \S", doctor.stdout, "doctor")


def stops_in_order(server):
    begin = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    code = server.process.wait(timeout=60)
    expect(code == 0, f"it ended with {code}", server.log())
    # Nothing is waited for that will not come.
    expect(time.monotonic() - begin < 14, "its stop waited for a bound", server.log())
    log = server.log()
    said = re.findall(r"ERROR memkv::server: an RDMA device is not in use, and is tried again: (.*)", log)
    expect(len(said) == 2 and all(re.match(WHY, each) for each in said), "said once a rail", log)
    expect(log.count(" ERROR ") == 2, "there are other errors", log)
    expect_match(r" INFO memkv::server: stopped\n$", log, "the log's end")


def main():
    with tempfile.TemporaryDirectory(prefix="memkv-rdma-absent-") as folder:
        for mode in ("memory", "file"):
            server = Server(folder, mode)
            try:
                serves_over_tcp(server)
                says_why(server)
                time.sleep(1.0)  # some trials later, it is all the same
                says_why(server)
                serves_over_tcp(server)
                stops_in_order(server)
            finally:
                if server.process.poll() is None:
                    server.process.kill()
                    server.process.wait()
    print("rdma_absent_test: memory and file mode")


if __name__ == "__main__":
    main()
