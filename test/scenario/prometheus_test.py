"""A real Prometheus scrapes a real server under load, and its answers are compared with what was done.

    prometheus_test.py MEMKV SOURCE
"""
import json
import pathlib
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))

from development_license import environment as licensed  # noqa: E402
from free_ports import free_port  # noqa: E402
from memkv_page_client import Client  # noqa: E402

MEMKV = sys.argv[1]
SOURCE = pathlib.Path(sys.argv[2])
PATIENCE_S = 60
PUTS = 20
GETS = 15
MISSES = 5
VALUE_BYTES = 300_000
COMPLAINT = 'memkv_blocks_total non-counter metrics should not have "_total" suffix'


def fetch(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def wait_for(what, process, log, last=lambda: "no answer"):
    """Until `what` gives something other than None; `last` says what it gave instead."""
    end = time.monotonic() + PATIENCE_S
    problem = None
    while time.monotonic() < end:
        if process.poll() is not None:
            sys.exit(f"a process ended with {process.returncode}:\n{log.read_text(errors='replace')}")
        try:
            if (found := what()) is not None:
                return found
        except (OSError, urllib.error.URLError, ValueError) as error:
            problem = error
        time.sleep(0.2)
    sys.exit(f"not within {PATIENCE_S} s: {last()} ({problem}):\n{log.read_text(errors='replace')}")


class Prometheus:
    def __init__(self, folder, target):
        self.url = f"http://127.0.0.1:{free_port(following=0)}"
        config = (SOURCE / "deploy/prometheus/prometheus.yaml").read_text()
        assert "127.0.0.1:9901" in config and "15s" in config
        config = config.replace("127.0.0.1:9901", target).replace("15s", "1s").replace(
            "scrape_timeout: 5s", "scrape_timeout: 1s")
        (folder / "prometheus.yaml").write_text(config)
        shutil.copy(SOURCE / "deploy/prometheus/alerts.yaml", folder)
        self.log = folder / "prometheus.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={folder / 'prometheus.yaml'}",
                 f"--storage.tsdb.path={folder / 'data'}",
                 f"--web.listen-address={self.url[len('http://'):]}", "--log.level=warn"],
                stdout=log, stderr=log)

    def ask(self, path, **parameters):
        answer = json.loads(fetch(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))
        assert answer["status"] == "success", answer
        return answer["data"]

    def value(self, expression):
        """The one value of an expression, or None when there is none."""
        result = self.ask("query", query=expression)["result"]
        assert len(result) < 2, result
        return float(result[0]["value"][1]) if result else None

    def expect(self, expression, wanted):
        last = []

        def there():
            now = self.value(expression)
            last[:] = [now]
            return now if now is not None and wanted(now) else None
        return wait_for(there, self.process, self.log, lambda: f"{expression} was {last}")

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=30)


class Server:
    def __init__(self, folder):
        self.folder = folder
        port = free_port(following=1)
        self.address, self.admin = f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}"
        self.environment = licensed(MEMKV, MEMKV_AUTH_KEY=secrets.token_hex(32))
        drives = "".join(f"    - {{ media: {folder / f'drive-{i}'}, max_size: 256 MiB }}\n" for i in range(2))
        (folder / "server.yaml").write_text(
            f"network:\n  address: {self.address}\nmemory:\n  max_size: 64 MiB\n"
            f"storage:\n  mode: file\n  drives:\n{drives}")
        self.log = folder / "server.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [MEMKV, "start", "--config", str(folder / "server.yaml"), "--log-file", "none"],
                env=self.environment, stdout=log, stderr=log)
        wait_for(lambda: fetch(f"http://{self.admin}/v1/ready"), self.process, self.log)

    def client(self, *arguments):
        """Exit code and standard output of memkv client."""
        done = subprocess.run([MEMKV, "client", *arguments, "--servers", self.address], env=self.environment,
                              capture_output=True, timeout=60, check=False)
        return done.returncode, done.stdout

    def stop(self):
        self.process.terminate()
        if (code := self.process.wait(timeout=60)) != 0:
            sys.exit(f"the server ended with {code}:\n{self.log.read_text(errors='replace')}")


def load(server, folder):
    value = folder / "value"
    value.write_bytes(secrets.token_bytes(VALUE_BYTES))
    for number in range(PUTS):
        assert server.client("put", f"key-{number}", str(value)) == (0, b"")
    for number in range(GETS):
        assert server.client("get", f"key-{number}") == (0, value.read_bytes())
    # memkv client looks before it gets.
    host, port = server.address.split(":")
    key = bytes.fromhex(server.environment["MEMKV_AUTH_KEY"])
    with Client(host, int(port), key) as client:
        for number in range(MISSES):
            assert client.get(b"nothing-%d" % number) is None


def check_text(server):
    """What the server itself gives: judged by promtool, and parsed as simple programs do."""
    text = fetch(f"http://{server.admin}/v1/metrics")
    judged = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True,
                            timeout=30, check=False)
    assert (judged.stdout + judged.stderr).strip() == COMPLAINT, judged
    plain = dict(line.split(" ") for line in text.splitlines() if line[0] != "#" and "{" not in line)
    assert plain["memkv_write_total"] == str(PUTS), plain["memkv_write_total"]
    assert plain["memkv_write_bytes_total"] == str(PUTS * VALUE_BYTES), plain["memkv_write_bytes_total"]
    assert plain["memkv_blocks_total"] == str(PUTS)
    assert plain["memkv_read_total"] == str(GETS)
    assert plain["memkv_rdma_active"] == "0"
    assert plain["memkv_storage_usable_bytes"].isdigit() and plain["memkv_storage_used_bytes"].isdigit()


def check_scrape(prometheus):
    equal = [
        ("up", 1),
        ("memkv_serving", 1),
        ("memkv_blocks_total", PUTS),
        ("memkv_write_total", PUTS),
        ("memkv_write_bytes_total", PUTS * VALUE_BYTES),
        ("memkv_read_total", GETS),
        ("memkv_read_bytes_total", GETS * VALUE_BYTES),
        ("memkv_read_misses_total", MISSES),
        ("memkv_read_hit_ratio", GETS / (GETS + MISSES)),
        ('memkv_health{status="healthy"}', 1),
        ("sum(memkv_drive_up)", 2),
        ("sum(memkv_drive_blocks)", PUTS),
        ('memkv_request_duration_seconds_count{operation="get",stage="total"}', GETS + MISSES),
        ('memkv_request_duration_seconds_count{operation="put",stage="total"}', PUTS),
        ("min(memkv_actor_responding)", 1),
        ("sum(memkv_evictions_total)", 0),
        ("sum(memkv_drive_errors_total)", 0),
    ]
    for expression, value in equal:
        prometheus.expect(expression, lambda now, value=value: now == value)
    # Each moment of a request belongs to one stage.
    for operation in ["get", "put"]:
        parts = prometheus.value(
            f'sum(memkv_request_duration_seconds_sum{{operation="{operation}",stage!="total"}})')
        total = prometheus.value(
            f'sum(memkv_request_duration_seconds_sum{{operation="{operation}",stage="total"}})')
        assert 0 < total < PATIENCE_S and abs(parts - total) < 1e-6, (operation, parts, total)
    for expression in ['sum(memkv_drive_request_duration_seconds_count{operation="write"})',
                       "sum(memkv_drive_written_bytes_total)", "sum(memkv_journal_records_total)",
                       "process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds",
                       "memkv_uptime_seconds",
                       'histogram_quantile(0.99, sum by (le) (memkv_request_duration_seconds_bucket'
                       '{operation="put",stage="total"}))']:
        assert prometheus.value(expression) > 0, expression
    target, = prometheus.ask("targets")["activeTargets"]
    assert target["health"] == "up" and target["lastError"] == "", target
    groups = prometheus.ask("rules")["groups"]
    assert len(groups) > 3 and all(rule["health"] != "err" for group in groups for rule in group["rules"])


def main():
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        sys.exit("prometheus is missing: run scripts/install-dependencies")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        server = Server(folder)
        try:
            prometheus = Prometheus(folder, server.admin)
            try:
                load(server, folder)
                check_text(server)
                check_scrape(prometheus)
                server.stop()
                prometheus.expect("up", lambda now: now == 0)
            finally:
                prometheus.stop()
        finally:
            if server.process.poll() is None:
                server.stop()
    print("prometheus: what it scraped is what was done")


if __name__ == "__main__":
    main()
