"""Makes a soft-RoCE device on a veth pair and runs a program with its name.

  test/vm/run --rdma -- python3 test/vm/guest/verbs_rc.py PROGRAM
"""
import subprocess
import sys

import rdma_link


def main():
    rdma_link.make()
    return subprocess.run([sys.argv[1], rdma_link.NAME], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
