"""Makes a soft-RoCE device on a veth pair and runs programs with its name, one after the other.

  test/vm/run --rdma -- python3 test/vm/guest/verbs_rc.py PROGRAM...
"""
import subprocess
import sys

MTU = "9000"  # for a path MTU of 4096 bytes


def run(*command):
    subprocess.run(command, check=True)


def main():
    run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
    run("ip", "address", "add", "10.7.0.1/24", "dev", "v0")
    for end in ("v0", "v1"):
        run("ip", "link", "set", end, "mtu", MTU, "up")
    run("rdma", "link", "add", "rxe0", "type", "rxe", "netdev", "v0")
    for program in sys.argv[1:]:
        code = subprocess.run([program, "rxe0"], check=False).returncode
        if code != 0:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
