"""Makes a soft-RoCE device on a veth pair and runs programs with its name, one after the other.

  test/vm/run --rdma -- python3 test/vm/guest/verbs_rc.py PROGRAM...
"""
import subprocess
import sys

import rdma_link


def main():
    rdma_link.make()
    for program in sys.argv[1:]:
        code = subprocess.run([program, rdma_link.NAME], check=False).returncode
        if code != 0:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
