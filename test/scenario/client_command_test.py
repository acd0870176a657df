"""memkv client against a real server, also on a terminal.

client_command_test.py MEMKV            starts a server of its own, in memory mode, on a free port
client_command_test.py MEMKV ADDRESS    uses the server there, with the key in MEMKV_AUTH_KEY
"""

import json
import os
import pathlib
import pty
import select
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))

from development_license import environment as licensed  # noqa: E402
from free_ports import free_port  # noqa: E402

MEMKV = sys.argv[1]
LARGE_BYTES = 64 << 20


class Server:
    """A server in memory mode that lives as long as this."""

    def __init__(self, folder, key):
        self.address = f"127.0.0.1:{free_port()}"
        config = os.path.join(folder, "server.yaml")
        with open(config, "w", encoding="ascii") as file:
            file.write(
                f"network:\n  address: {self.address}\n"
                "memory:\n  max_size: 64 MiB\n"
                "storage:\n  mode: memory\n  drives:\n    - { media: memory, max_size: 512 MiB }\n"
            )
        self.log = open(os.path.join(folder, "server.log"), "wb")
        self.process = subprocess.Popen(
            [MEMKV, "start", "--config", config, "--log-file", "none"],
            env=licensed(MEMKV, keep=True, MEMKV_AUTH_KEY=key),
            stdout=self.log,
            stderr=self.log,
        )
        host, port = self.address.split(":")
        for _ in range(300):
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        with open(self.log.name, encoding="utf-8", errors="replace") as file:
            sys.exit("the server did not start:\n" + file.read())

    def stop(self):
        self.process.terminate()
        code = self.process.wait(timeout=30)
        self.log.close()
        if code != 0:
            sys.exit(f"the server ended with {code}:\n{open(self.log.name, errors='replace').read()}")


class Tester:
    def __init__(self, address, key):
        self.environment = licensed(MEMKV, MEMKV_AUTH_KEY=key, MEMKV_SERVERS=address)
        self.checks = 0

    def client(self, *words, stdin=b"", **environment):
        return subprocess.run(
            [MEMKV, "client", *words],
            env={**self.environment, **environment},
            input=stdin,
            capture_output=True,
            timeout=120,
        )

    def expect(self, condition, what, result):
        self.checks += 1
        if not condition:
            sys.exit(
                f"{what}\nexit {result.returncode}\n{result.stdout[:2000]!r}\n{result.stderr[:2000]!r}"
            )

    def one_sentence(self, result, part, what):
        lines = result.stderr.decode().splitlines()
        self.expect(
            result.returncode == 1
            and len(lines) == 1
            and lines[0].startswith("memkv: ")
            and part in lines[0],
            what,
            result,
        )


def values(tester, folder):
    path = os.path.join(folder, "value")
    for size in (0, 1, 4096, 1 << 20, (5 << 20) + 17):
        value = os.urandom(size)
        with open(path, "wb") as file:
            file.write(value)
        tester.expect(
            tester.client("put", "from-file", path).returncode == 0,
            f"put of {size} bytes",
            tester.client("stat"),
        )
        result = tester.client("get", "from-file")
        tester.expect(result.returncode == 0 and result.stdout == value, f"get of {size} bytes", result)
        result = tester.client("put", "from-stdin", stdin=value)
        tester.expect(
            result.returncode == 0 and result.stdout == b"",
            f"put of {size} bytes from standard input",
            result,
        )
        target = os.path.join(folder, "fetched")
        result = tester.client("get", "from-stdin", "--output", target)
        with open(target, "rb") as file:
            tester.expect(
                result.returncode == 0 and file.read() == value, f"get of {size} bytes to a file", result
            )
        os.unlink(target)
    result = tester.client("get", "from-file", "--offset", "10", "--length", "20")
    tester.expect(result.stdout == value[10:30], "a range", result)
    result = tester.client("get", "from-file", "--offset", str(len(value) - 5))
    tester.expect(result.stdout == value[-5:], "to the end", result)
    result = tester.client("get", "from-file", "--offset", str(len(value) + 1))
    tester.one_sentence(result, "--offset", "behind the end")
    tester.expect(
        sorted(os.listdir(folder)) == sorted(set(os.listdir(folder)) - {"fetched"})
        and not any(".part." in name for name in os.listdir(folder)),
        "nothing is left over",
        result,
    )


def states(tester):
    for key in ("chain-0", "chain-1", "chain-3"):
        tester.client("put", key, stdin=b"12345")
    result = tester.client("exists", "chain-0", "chain-2")
    tester.expect(
        result.returncode == 1 and result.stdout == b"chain-0: stored, 5 bytes\nchain-2: missing\n",
        "exists",
        result,
    )
    result = tester.client("exists", "chain-0", "chain-1")
    tester.expect(result.returncode == 0, "all exist", result)
    result = tester.client("exists", "--json", "chain-3", "nothing")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    tester.expect(
        [row["state"] for row in rows] == ["stored", "missing"] and rows[0]["bytes"] == 5,
        "exists as JSON",
        result,
    )
    result = tester.client("exists", "--prefix", "chain-0", "chain-1", "chain-2", "chain-3")
    tester.expect(
        result.stdout == b"2 of 4 keys from the start, 10 bytes\n" and result.returncode == 1,
        "prefix",
        result,
    )
    result = tester.client("put", "--if-absent", "chain-0", stdin=b"other")
    tester.one_sentence(result, "left as it is", "put if absent")
    tester.expect(tester.client("get", "chain-0").stdout == b"12345", "value kept", result)
    result = tester.client("stat", "--json", "chain-0")
    row = json.loads(result.stdout)
    tester.expect(
        row["bytes"] == 5 and len(row["crc32c"]) == 8 and row["generation"] > 0, "stat of a block", result
    )
    result = tester.client("stat", "--json")
    row = json.loads(result.stdout)
    tester.expect(row["blocks"] >= 3 and row["drives_online"] >= 1, "stat of the server", result)
    result = tester.client("put", "--hex", "00ff10", stdin=b"binary")
    tester.expect(
        result.returncode == 0 and tester.client("get", "-x", "00FF10").stdout == b"binary",
        "hex key",
        result,
    )
    tester.one_sentence(tester.client("get", "-x", "0g"), "hexadecimal", "bad hex key")
    result = tester.client("put", "chain-0", "--namespace", "tenant-a", stdin=b"a")
    tester.expect(tester.client("get", "chain-0").stdout == b"12345", "namespaces are apart", result)
    tester.expect(tester.client("get", "chain-0", "-n", "tenant-a").stdout == b"a", "namespace", result)
    result = tester.client("delete", "chain-0", "chain-1")
    tester.expect(result.returncode == 0, "delete", result)
    tester.one_sentence(tester.client("delete", "chain-0"), "no block", "delete of nothing")
    tester.one_sentence(tester.client("get", "chain-0"), "no block", "get of nothing")


def outputs(tester, folder):
    """Only files are replaced: what lies behind a link, a pipe or a device stays what it is."""
    tester.client("put", "small", stdin=b"small value")
    file, link, pipe = (os.path.join(folder, name) for name in ("out", "link", "pipe"))
    with open(file, "wb") as old:
        old.write(b"before")
    os.symlink(file, link)
    result = tester.client("get", "small", "--output", link)
    with open(file, "rb") as written:
        tester.expect(os.path.islink(link) and written.read() == b"small value", "get through a link", result)
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    result = tester.client("get", "small", "--output", pipe)
    tester.expect(
        os.read(reader, 100) == b"small value" and result.returncode == 0, "get into a pipe", result
    )
    os.close(reader)
    tester.expect(not os.path.isfile(pipe), "a pipe stays a pipe", result)


def refusals(tester):
    tester.one_sentence(tester.client("get", "key", MEMKV_AUTH_KEY=""), "no auth key", "no key")
    tester.one_sentence(
        tester.client("get", "key", "--servers", "127.0.0.1:1"),
        "key: 127.0.0.1:1: the server cannot be reached",
        "server down",
    )
    for words in (("exists", "--prefix", "key"), ("delete", "key"), ("stat",)):
        result = tester.client(*words, "--servers", "127.0.0.1:1")
        tester.one_sentence(result, "127.0.0.1:1: the server", f"{words[0]} of a server that is down")
    tester.one_sentence(
        tester.client("get", "key", MEMKV_AUTH_KEY=os.urandom(32).hex()),
        "clock skew or wrong key?",
        "wrong key",
    )
    tester.one_sentence(tester.client("put", "key", "/no/such/file"), "/no/such/file", "no file")
    tester.one_sentence(tester.client("get", "k" * 1025), "1 to 1024 bytes", "long key")
    tester.one_sentence(tester.client("get", "key", "--deadline-ms", "0"), "--deadline-ms", "deadline")
    tester.one_sentence(tester.client("get", "key", MEMKV_TRANSPORT="rdma"), "transport rdma", "rdma")
    tester.one_sentence(tester.client("get", "key", MEMKV_SERVERS=" ,, "), "names no server", "empty list")


def oddities(tester):
    """Values that come too slowly, keys that are hard to print, streams that are closed."""
    never, writer = os.pipe()
    words = [MEMKV, "client", "put", "key", "--deadline-ms", "500"]
    result = subprocess.run(words, env=tester.environment, stdin=never, capture_output=True, timeout=60)
    os.close(writer)
    os.close(never)
    tester.one_sentence(result, "did not end in time", "a value that never comes")
    with tempfile.TemporaryDirectory() as folder:
        pipe = os.path.join(folder, "pipe")
        os.mkfifo(pipe)
        result = tester.client("put", "key", pipe, "--deadline-ms", "500")
        tester.one_sentence(result, "did not end in time", "a pipe that nobody writes to")
        feeder = subprocess.Popen(["sh", "-c", f"sleep 0.2; printf 'by pipe' > {pipe}"])
        result = tester.client("put", "small", pipe)
        feeder.wait(timeout=60)
        tester.expect(result.returncode == 0, "put from a pipe", result)
        tester.expect(tester.client("get", "small").stdout == b"by pipe", "what came by a pipe", result)
        result = tester.client("get", "small", MEMKV_CONFIG=pipe)
        tester.one_sentence(result, "it is no regular file", "a configuration that is a pipe")
    result = tester.client("put", "small", stdin=b"small value")
    result = tester.client("get", "small", "--output", "-")
    tester.expect(result.stdout == b"small value" and not os.path.exists("-"), "get -o -", result)
    result = tester.client("exists", "--json", "\u043a\u043b\u044e\u0447", "tab\tkey")
    names = [json.loads(line)["key"] for line in result.stdout.decode().splitlines()]
    tester.expect(names == ["\u043a\u043b\u044e\u0447", "tab\tkey"], "keys in JSON", result)
    result = tester.client("exists", "tab\tkey\x1b[31m")
    tester.expect(result.stdout == b"tab\\x09key\\x1b[31m: missing\n", "a key that is hard to print", result)
    words = f"exec {MEMKV} client get small >&-"
    result = subprocess.run(["sh", "-c", words], env=tester.environment, capture_output=True, timeout=60)
    tester.one_sentence(result, "standard output", "standard output is closed")


def on_terminal(tester, words):
    """Runs a command whose standard error is a terminal; returns what it showed there and its exit code."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [MEMKV, "client", *words],
        env=tester.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        ready, _, _ = select.select([controller], [], [], 1)
        if ready:
            try:
                piece = os.read(controller, 4096)
            except OSError:
                break
            if not piece:
                break
            shown += piece
    os.close(controller)
    return shown, process.wait(timeout=30)


def progress(tester, folder):
    path = os.path.join(folder, "large")
    with open(path, "wb") as file:
        file.write(os.urandom(LARGE_BYTES))
    for words in (("put", "large", path), ("get", "large", "--output", os.path.join(folder, "large-back"))):
        shown, code = on_terminal(tester, words)
        text = shown.decode()
        result = subprocess.CompletedProcess(words, code, shown, b"")
        tester.expect(code == 0, f"{words[0]} on a terminal", result)
        tester.expect(
            f"{words[0]} " in text and "of 64.0 MiB" in text and "MiB/s" in text and "s left" in text,
            "progress is shown on a terminal",
            result,
        )
        tester.expect(text.endswith("\r\x1b[K"), "progress is wiped away at the end", result)
        shown, code = on_terminal(tester, (*words, "--quiet"))
        tester.expect(
            code == 0 and shown == b"",
            "quiet on a terminal",
            subprocess.CompletedProcess(words, code, shown, b""),
        )
    result = tester.client("put", "large", path)
    tester.expect(result.returncode == 0 and result.stderr == b"", "no progress without a terminal", result)
    with open(path, "rb") as one, open(os.path.join(folder, "large-back"), "rb") as other:
        tester.expect(one.read() == other.read(), "large value", result)
    small = os.path.join(folder, "value")
    shown, code = on_terminal(tester, ("put", "small", small))
    tester.expect(
        code == 0 and shown == b"",
        "no progress for a small value",
        subprocess.CompletedProcess(small, code, shown, b""),
    )


def main():
    with tempfile.TemporaryDirectory() as folder:
        server = None
        if len(sys.argv) > 2:
            address, key = sys.argv[2], os.environ["MEMKV_AUTH_KEY"]
        else:
            key = os.urandom(32).hex()
            server = Server(folder, key)
            address = server.address
        tester = Tester(address, key)
        try:
            values(tester, folder)
            states(tester)
            outputs(tester, folder)
            refusals(tester)
            oddities(tester)
            progress(tester, folder)
        finally:
            if server:
                server.stop()
        print(f"memkv client: {tester.checks} checks passed")


if __name__ == "__main__":
    main()
