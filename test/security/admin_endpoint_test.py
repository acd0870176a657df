"""The administration endpoint of a real server, asked with curl: every path, HTTPS, signed requests as the
page shows them, and starts that are refused.

    admin_endpoint_test.py MEMKV
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import time
import unittest

import live_server
import openapi_schema
from live_server import KEY_TEXT, Server

MEMKV = live_server.program()
PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "admin-api.md"
CURL_S = 60  # no speed is asserted: whoever waits for longer waits in vain


def run(command: list[str], **options: object) -> subprocess.CompletedProcess:
    """A command that must end by itself."""
    return subprocess.run(command, capture_output=True, timeout=300, check=False, **options)


def curl(url: str, *options: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers in lower case, body."""
    made = run(["curl", "--silent", "--show-error", "--include", "--max-time", str(CURL_S), *options, url])
    if made.returncode != 0:
        raise AssertionError(f"curl {url}: {made.stderr.decode()}")
    head, _, body = made.stdout.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers, body


def certificate(directory: pathlib.Path, name: str) -> tuple[pathlib.Path, pathlib.Path]:
    """A new certificate for loopback and its key."""
    pem, key = directory / f"{name}.pem", directory / f"{name}.key"
    made = run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", str(key), "-out", str(pem), "-days", "2", "-subj", f"/CN={name}",
                "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"])
    if made.returncode != 0:
        raise AssertionError(made.stderr.decode())
    return pem, key


class Answers(unittest.TestCase):
    """One server, asked with curl."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server(MEMKV, host="0.0.0.0")
        cls.server.start()
        cls.url = f"http://127.0.0.1:{cls.server.admin_port}"
        cls.document = openapi_schema.Document.load()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.server.close()

    def test_every_path_answers_as_the_document_says(self) -> None:
        for path, method in sorted(self.document.operations()):
            options = ["--request", method.upper()]
            status, headers, body = curl(self.url + path.replace("{id}", "0"), *options)
            if path == "/v1/faults":
                self.assertEqual(status, 404)
            found = self.document.misfits(path, method, status, headers["content-type"], body)
            self.assertEqual(found, [], f"{method} {path}")
            self.assertIn("content-security-policy", headers)
            self.assertEqual(headers["x-content-type-options"], "nosniff")
            self.assertEqual(headers["cache-control"], "no-cache" if path == "/" else "no-store")

    def test_the_server_returns_the_document(self) -> None:
        _, _, body = curl(self.url + "/v1/openapi.json")
        self.assertEqual(json.loads(body), self.document.content)

    def test_the_schemas_refuse_what_is_not_documented(self) -> None:
        status = json.loads(curl(self.url + "/v1/status")[2])
        schema = {"$ref": "#/components/schemas/status"}
        self.assertEqual(self.document.misfits_of(status, schema), [])
        status["storage"]["devices"][0]["io"]["unknown"] = 1
        self.assertEqual(len(self.document.misfits_of(status, schema)), 1)
        del status["requests"]["reads"]
        status["server_id"] = "A"
        self.assertEqual(len(self.document.misfits_of(status, schema)), 3)

    def test_head_is_get_without_the_body(self) -> None:
        status, headers, body = curl(self.url + "/v1/health", "--head")
        self.assertEqual((status, body), (200, b""))
        self.assertGreater(int(headers["content-length"]), 50)

    def test_status_counts_what_clients_do(self) -> None:
        with self.server.client() as client:
            client.put(b"key", b"x" * 10000)
            client.get(b"key")

        # A report may be a moment old: many who ask get the same one.
        def is_counted() -> bool:
            status = json.loads(curl(self.url + "/v1/status")[2])
            return (status["requests"]["writes"] >= 1 and status["requests"]["read_bytes"] >= 10000
                    and status["storage"]["blocks_total"] == 1)
        live_server.wait_until(is_counted, CURL_S, "a put and a get are counted")
        status = json.loads(curl(self.url + "/v1/status")[2])
        self.assertEqual(status["address"], f"0.0.0.0:{self.server.port}")
        self.assertLess(abs(status["time"] - time.time()), 60)

    def sign_like_the_page(self, key: str) -> tuple[int, dict]:
        """Runs the example of the page, in the shell, against this server."""
        text = PAGE.read_text(encoding="utf-8")
        example = re.search(r"(?ms)^target=.*?server:9901\$target\"$", text).group(0)
        example = example.replace("http://server:9901", self.url).replace("drives/2/", "drives/0/")
        example = example.replace("curl ", "curl --silent --max-time 60 --write-out '\\n%{http_code}' ")
        made = run(["bash", "-euc", example], env={**os.environ, "MEMKV_AUTH_KEY": key})
        self.assertEqual(made.returncode, 0, made.stderr.decode())
        body, _, code = made.stdout.decode().rpartition("\n")
        return int(code), json.loads(body)

    def test_the_signed_request_of_the_page_is_accepted(self) -> None:
        # A memory drive has nothing to reset: 409 is the word of the server behind the signature.
        code, answer = self.sign_like_the_page(KEY_TEXT)
        self.assertEqual(code, 409, answer)
        code, answer = self.sign_like_the_page("1f" + KEY_TEXT[2:])
        self.assertEqual(code, 401, answer)
        self.assertIn("signature is wrong", answer["error"])

    def test_elsewhere_than_loopback_changes_are_signed(self) -> None:
        own = own_address()
        if own is None:
            self.skipTest("this machine has no address but loopback")
        reset = f"http://{own}:{self.server.admin_port}/v1/drives/0/reset"
        self.assertEqual(curl(reset, "--request", "POST")[0], 401)
        self.assertEqual(curl(f"http://{own}:{self.server.admin_port}/v1/health")[0], 200)
        with Server(MEMKV, host="0.0.0.0", network="admin_open: true") as open_server:
            reset = f"http://{own}:{open_server.admin_port}/v1/drives/0/reset"
            self.assertEqual(curl(reset, "--request", "POST")[0], 409)


def own_address() -> str | None:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address = one.getsockname()[0]
    return None if address.startswith("127.") else address


class Starts(unittest.TestCase):
    """HTTPS, and what keeps a server from starting."""

    def setUp(self) -> None:
        keeper = tempfile.TemporaryDirectory(prefix="memkv-admin-")
        self.addCleanup(keeper.cleanup)
        self.directory = pathlib.Path(keeper.name)

    def refused(self, network: str) -> str:
        """What a start with these keys says; it must end with 1 and say one sentence."""
        config = self.directory / "config.yaml"
        drive = self.directory / "drive"
        config.write_text(f"network: {{ {network} }}\nmemory: {{ max_size: 16 MiB }}\n"
                          f"storage: {{ mode: file, drives: [{{ media: {drive}, max_size: 64 MiB }}] }}\n",
                          encoding="utf-8")
        made = run([MEMKV, "start", "--config", str(config), "--log-file", str(self.directory / "log")],
                   env=live_server.licensed(MEMKV, keep=True, MEMKV_AUTH_KEY=KEY_TEXT))
        text = made.stderr.decode()
        self.assertEqual(made.returncode, 1, text)
        self.assertEqual(len(text.strip().splitlines()), 1, text)
        self.assertFalse(drive.exists(), "a drive was opened before")
        return text

    def test_a_certificate_that_cannot_be_used_is_refused(self) -> None:
        one, one_key = certificate(self.directory, "one")
        _, two_key = certificate(self.directory, "two")
        address = 'address: "127.0.0.1:0", '
        self.assertIn("is set alone", self.refused(f"{address}tls_cert: {one}"))
        self.assertIn("is set alone", self.refused(f"{address}tls_key: {one_key}"))
        self.assertIn("does not belong", self.refused(f"{address}tls_cert: {one}, tls_key: {two_key}"))
        self.assertIn("cannot be read", self.refused(f"{address}tls_cert: {one}, tls_key: {one}.missing"))
        self.assertIn("no certificate", self.refused(f"{address}tls_cert: {one_key}, tls_key: {one_key}"))

    def test_a_port_that_is_taken_is_refused(self) -> None:
        def refused_for_its_second_port() -> bool:
            with socket.create_server(("127.0.0.1", 0)) as taken:
                port = taken.getsockname()[1]
                text = self.refused(f'address: "127.0.0.1:{port - 1}"')
                # Whatever else runs here may have the port before it, and then that one is named.
                if f"cannot listen on 127.0.0.1:{port - 1}: Address already in use" in text:
                    return False
                self.assertIn(f"the administration endpoint cannot listen on 127.0.0.1:{port}", text)
                return True
        live_server.wait_until(refused_for_its_second_port, CURL_S, "a port whose neighbour is free")
        self.assertIn("network.address", self.refused('address: "127.0.0.1:65535"'))

    def test_https_is_spoken_and_a_new_certificate_is_read(self) -> None:
        pem, key = certificate(self.directory, "first")
        new_pem, new_key = certificate(self.directory, "second")
        with Server(MEMKV, network=f"tls_cert: {pem}, tls_key: {key}") as server:
            url = f"https://127.0.0.1:{server.admin_port}/v1/health"
            old = pem.read_bytes()
            (self.directory / "old.pem").write_bytes(old)
            trust = ["--cacert", str(self.directory / "old.pem")]
            status, _, body = curl(url, *trust)
            self.assertEqual(status, 200)
            self.assertEqual(json.loads(body)["status"], "healthy")
            for wrong in (["--tls-max", "1.1"], ["--cacert", str(new_pem)]):
                with self.assertRaises(AssertionError):
                    curl(url, *(wrong if "--cacert" in wrong else trust + wrong))
            # The certificate alone does not fit the key, and is not used; both together are.
            pem.write_bytes(new_pem.read_bytes())
            time.sleep(6)
            self.assertEqual(curl(url, *trust)[0], 200)
            live_server.wait_until(lambda: "stays in use" in server.log(), CURL_S, "the log says so")
            key.write_bytes(new_key.read_bytes())

            def is_new() -> bool:
                made = run(["curl", "--silent", "--max-time", str(CURL_S), "--cacert", str(new_pem), url])
                return made.returncode == 0
            live_server.wait_until(is_new, CURL_S, "the new certificate is used")
            status, _, body = curl(f"http://127.0.0.1:{server.admin_port}/v1/health")
            self.assertEqual(status, 400)
            self.assertIn("HTTPS", json.loads(body)["error"])
            self.assertEqual(server.stop(), 0)

    def test_a_server_stops_whoever_is_connected(self) -> None:
        with Server(MEMKV) as server:
            with socket.create_connection(("127.0.0.1", server.admin_port)) as idle:
                idle.sendall(b"GET /v1/hea")
                self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main()
