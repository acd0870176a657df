"""Tests of requests that come as messages of a queue pair, on a soft-RoCE device in place of a simulated one.

rdma_messages.py CONNECT_TEST LEASE_TEST

Left out are those that slow the network down, or measure time that this emulated machine does not have.
"""

from __future__ import annotations

import os
import subprocess
import sys

import rdma_link

LIMIT_S = "500"  # of each program
CONNECT = "every request.*|values travel.*|what does not travel.*|messages that were sent.*"
LEASE = (
    "a value written.*|a block under.*|what cannot be done.*|a server that wants.*|writes and the commit.*"
    "|tokens have limits.*|nothing is left.*"
)


def main(connect_test: str, lease_test: str) -> int:
    rdma_link.make()
    environment = dict(os.environ, MEMKV_TEST_RDMA_DEVICE=rdma_link.NAME)
    for program, tests in ((connect_test, CONNECT), (lease_test, LEASE)):
        code = subprocess.run([program, "-r", LIMIT_S, "-t", tests], env=environment, check=False).returncode
        if code != 0:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
