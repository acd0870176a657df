"""Licences through the programs: license_test.py MEMKV MEMKV_BENCH MEMKV_LICENSE. Starts one server.

A licence of the plan Free serves, and its clients use one server; every place of the chain works, and what
is named and not usable is refused by its name.
"""

import contextlib
import os
import pathlib
import select
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))

from development_license import environment as licensed  # noqa: E402

MEMKV, BENCH, ISSUER = sys.argv[1:4]
KEY = os.urandom(32).hex()
VARIABLES = ("MEMKV_LICENSE", "AISTOR_LICENSE", "MINIO_LICENSE")


def expect(condition, what, done=None):
    if not condition:
        said = "" if done is None else f"\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"
        sys.exit(f"license_test: {what}{said}")


def issue(plan, days=1):
    done = subprocess.run([ISSUER, "issue", "--plan", plan, "--days", str(days)], capture_output=True,
                          text=True, timeout=60, check=True)
    return done.stdout.strip()


def run(words, home, **variables):
    environment = {**licensed(MEMKV), "HOME": home, "MEMKV_AUTH_KEY": KEY}
    environment.update({name: "" for name in VARIABLES})
    environment.update(variables)
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False,
                          stdin=subprocess.DEVNULL)


@contextlib.contextmanager
def server(folder, **variables):
    config = os.path.join(folder, "config.yaml")
    with open(config, "w", encoding="ascii") as file:
        file.write("network: { address: '127.0.0.1:0' }\nmemory: { max_size: 32 MiB }\n"
                   "storage: { mode: memory, drives: [{ media: memory, max_size: 64 MiB }] }\n")
    environment = {**licensed(MEMKV), "HOME": folder, "MEMKV_AUTH_KEY": KEY}
    environment.update({name: "" for name in VARIABLES})
    environment.update(variables)
    with open(os.path.join(folder, "said"), "w+b") as said:
        process = subprocess.Popen([MEMKV, "start", "--config", config, "--log-file", "none"],
                                   stdout=subprocess.PIPE, stderr=said, env=environment)
        try:
            ready, _, _ = select.select([process.stdout], [], [], 60)
            line = process.stdout.readline().decode() if ready else ""
            said.seek(0)
            expect(line.startswith("memkv: serving on "), f"no server: {said.read().decode()}")
            yield line.split()[-1]
            process.terminate()
            expect(process.wait(60) == 0, "the server did not end with 0")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()


def refused(done, *parts):
    lines = done.stderr.splitlines()
    expect(done.returncode == 1 and len(lines) == 1 and all(part in lines[0] for part in parts),
           f"one sentence with {parts} was wanted", done)


def main():
    free, enterprise = issue("Free"), issue("Enterprise")
    with tempfile.TemporaryDirectory() as folder, server(folder, MINIO_LICENSE=free) as address:
        put = [MEMKV, "client", "put", "--servers"]
        value = os.path.join(folder, "value")
        with open(value, "w", encoding="ascii") as file:
            file.write("hello")
        two = f"{address},127.0.0.1:1"
        bench = [BENCH, "run", "--op", "put", "--block-size", "4 KiB", "--ops", "10", "--servers"]
        for name in VARIABLES:
            done = run([*put, address, "key", value], folder, **{name: free})
            expect(done.returncode == 0, f"put with {name}", done)
            words = ["plan Free is for one server", "2 are configured", name + ": "]
            refused(run([*put, two, "key", value], folder, **{name: free}), *words)
            refused(run([*bench, two], folder, **{name: free}), *words)
        # Repetitions of one server are one server.
        done = run([*put, f"{address},{address}", "key", value], folder, MEMKV_LICENSE=free)
        expect(done.returncode == 0, "put to one server named twice", done)
        stat = [MEMKV, "client", "stat", "--servers", two]
        done = run(stat, folder, MEMKV_LICENSE=enterprise)
        expect("Free" not in done.stderr and "license" not in done.stderr, "Enterprise with two", done)

        if not os.path.exists("/etc/memkv"):
            for words in ([*put, address, "key", value], [*bench, address]):
                refused(run(words, folder), "no license found", "set MEMKV_LICENSE", folder + "/.minio/")
        # A well-known file, also one that is not good.
        for below in (".minio/minio.license", ".memkv/minio.license"):
            path = os.path.join(folder, below)
            os.makedirs(os.path.dirname(path))
            with open(path, "w", encoding="ascii") as file:
                file.write(enterprise + "\n")
            done = run([*put, address, "key", value], folder)
            expect(done.returncode == 0, f"put with {below}", done)
            with open(path, "w", encoding="ascii") as file:
                file.write(enterprise[:-9] + "\n")
            refused(run([*put, address, "key", value], folder), path + ": the license")

        # The client's file wins over the variables, and a file may be named everywhere.
        path = os.path.join(folder, "free.license")
        with open(path, "w", encoding="ascii") as file:
            file.write(free)
        config = os.path.join(folder, "client.yaml")
        with open(config, "w", encoding="ascii") as file:
            file.write(f"license: {path}\n")
        refused(run([*put, two, "key", value], folder, MEMKV_CONFIG=config, MEMKV_LICENSE=enterprise),
                config + ":1: license: ", "plan Free")
        os.unlink(path)
        refused(run([*put, address, "key", value], folder, MEMKV_CONFIG=config, MEMKV_LICENSE=enterprise),
                config + ":1: license: ", path + " cannot be read")
    print("license_test: done")


if __name__ == "__main__":
    main()
