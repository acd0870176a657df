"""The command line of memkv-bench: help, refusals in one sentence, and a simulation without a server."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python"))

from development_license import environment as licensed  # noqa: E402

BENCH = sys.argv[1]
TRACE = "".join(
    json.dumps(
        {"timestamp": 1000 * i, "input_length": 1024, "output_length": 1, "hash_ids": [0, i % 7 + 1]}
    )
    + "\n"
    for i in range(50)
)


def bench(*words, key=True):
    environment = licensed(BENCH)
    if key:
        environment["MEMKV_AUTH_KEY"] = os.urandom(32).hex()
    return subprocess.run([BENCH, *words], env=environment, capture_output=True, text=True, timeout=60)


def expect(condition, what, result):
    if not condition:
        sys.exit(f"{what}\nexit {result.returncode}\n{result.stdout}\n{result.stderr}")


def main():
    result = bench("--help")
    expect(
        result.returncode == 0 and "sweep" in result.stdout and "replay" in result.stdout, "help", result
    )
    for command in ("sweep", "run", "replay"):
        result = bench(command, "--help")
        expect(result.returncode == 0 and "--json" in result.stdout, f"help of {command}", result)

    for words, part in (
        (("run", "--op", "fly"), "--op must be"),
        (("run", "--threads", "0"), "--threads must be from 1"),
        (("run", "--transport", "rdma"), "transport rdma needs rdma_devices"),
        (("run", "--transport", "pigeon"), "--transport must be"),
        (("replay", "no-such-file"), "cannot be opened"),
        (("run", "--servers", "http://x"), "URL"),
    ):
        result = bench(*words)
        lines = result.stderr.splitlines()
        expect(
            result.returncode == 1 and len(lines) == 1 and part in lines[0], f"refusal of {words}", result
        )
    result = bench("run", key=False)
    expect(result.returncode == 1 and "no auth key" in result.stderr, "no key", result)

    # Nobody listens on port 1: errors, no figures, exit 1.
    result = bench("run", "--servers", "127.0.0.1:1", "--op", "put", "--ops", "4", "--threads", "1")
    expect(
        result.returncode == 1 and "no figures" in result.stdout and "cannot be reached" in result.stderr,
        "server down",
        result,
    )

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "trace.jsonl")
        with open(path, "w", encoding="ascii") as file:
            file.write(TRACE)
        output = os.path.join(folder, "out.json")
        result = bench(
            "replay", path, "--policy", "all", "--capacity", "1,0.5", "--json", output, key=False
        )
        expect(result.returncode == 0, "simulation", result)
        with open(output, encoding="ascii") as file:
            runs = json.load(file)["simulations"]
        expect(len(runs) == 8, "eight simulations", result)
        # Block 0 misses once, each of the seven others once, the rest are hits in a store that holds all.
        expect(
            all(run["hits"] == 100 - 8 for run in runs if run["capacity"] == 1),
            "hits of a store that forgets nothing",
            result,
        )
        result = bench("replay", path, "--policy", "wrong", key=False)
        expect(result.returncode == 1 and "no eviction order" in result.stderr, "unknown order", result)
        result = bench("replay", path, "--expect", "stored")
        expect(
            result.returncode == 1 and "--expect ideal goes with pass 1" in result.stderr, "pass", result
        )
    print("memkv-bench's command line: all checks passed")


if __name__ == "__main__":
    main()
