"""The client that was written from the page alone, against real servers: each storage mode, and with keyed
digests required.

    page_client_live_test.py MEMKV

The pool is smaller than the largest batch, so that a server that keeps more than it needs stands still.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import unittest

from live_server import KEY_TEXT, Server, program

MEMKV = program()
CHECKS = pathlib.Path(__file__).resolve().parents[1] / "python" / "page_client_test.py"


class page_client(unittest.TestCase):
    def must_pass(self, **options):
        with Server(MEMKV, drive_mib=128, **options) as server:
            done = subprocess.run(
                [sys.executable, str(CHECKS), "server", "127.0.0.1", str(server.port), KEY_TEXT],
                capture_output=True, text=True, check=False, timeout=170)
            failures = [line for line in done.stdout.splitlines() if not line.startswith(("ok", "skip"))]
            self.assertEqual(done.returncode, 0, "\n".join(failures) + done.stderr + server.log())
            self.assertEqual(server.stop(), 0)
            print(options, failures[-1], flush=True)

    def test_it_finds_memory_mode_as_the_page_says(self):
        self.must_pass(mode="memory")

    def test_it_finds_file_mode_as_the_page_says(self):
        self.must_pass(mode="file")

    def test_it_finds_required_keyed_digests_as_the_page_says(self):
        self.must_pass(mode="memory", network="require_keyed_digest: true")


if __name__ == "__main__":
    unittest.main()
