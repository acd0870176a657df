"""Which keys a build is given: keys_test.py CMAKE SCRIPT LICENSE_DIRECTORY, the last that of the pair."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

CMAKE, SCRIPT, PAIR = sys.argv[1:4]
OTHER_KEY = """-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEt+i0s+HbnQ9cveqFCS0ivjo70DiGEgvN
M+CpmMjEzVmzKZ7xEQF2JZ1m4aDaCGlPpgwVMDDc8dNzI8+CtMWl704D9vJsQcS4
oZmRFHDHItD/3O4K1UdvTJqbwo//zhmf
-----END PUBLIC KEY-----
"""
# The same, its point compressed, and a key on another curve.
COMPRESSED_KEY = """-----BEGIN PUBLIC KEY-----
MEYwEAYHKoZIzj0CAQYFK4EEACIDMgADt+i0s+HbnQ9cveqFCS0ivjo70DiGEgvN
M+CpmMjEzVmzKZ7xEQF2JZ1m4aDaCGlP
-----END PUBLIC KEY-----
"""
SMALL_KEY = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEL2K6LePnyicm8UyJF4ZqZam4xBiI
cU+fU2ieQf77mOrcq9Lmtc1RP8cupJGUJWOjCT18P6lJN7q+WN9HJMaa0A==
-----END PUBLIC KEY-----
"""


class keys_of_a_build(unittest.TestCase):
    def setUp(self):
        keeper = tempfile.TemporaryDirectory()
        self.addCleanup(keeper.cleanup)
        self.folder = pathlib.Path(keeper.name)
        self.own = self.folder / "own.pem"
        self.own.write_text(OTHER_KEY, encoding="ascii")
        self.written = self.folder / "keys.cpp"
        self.issuer = self.folder / "issuer.cpp"
        self.everybodys = pathlib.Path(PAIR, "development-public.pem").read_text(encoding="ascii")
        self.private = pathlib.Path(PAIR, "development-private.pem").read_text(encoding="ascii")

    def write(self, development, key):
        return subprocess.run(
            [CMAKE, f"-DDEVELOPMENT={development}", f"-DRELEASE_KEY={key}", f"-DKEYS_FILE={self.written}",
             f"-DISSUER_FILE={self.issuer}", "-P", SCRIPT],
            capture_output=True, text=True, check=False)

    def refused(self, done, *parts):
        self.assertNotEqual(done.returncode, 0)
        said = " ".join(done.stderr.split())
        for part in parts:
            self.assertIn(part, said)
        self.assertFalse(self.written.exists())

    def test_a_development_build_has_the_pair_and_a_release_key_if_there_is_one(self):
        self.assertEqual(self.write("ON", "").returncode, 0)
        self.assertIn(self.everybodys, self.written.read_text(encoding="ascii"))
        self.assertIn(self.private, self.issuer.read_text(encoding="ascii"))
        self.assertEqual(self.write("ON", self.own).returncode, 0)
        text = self.written.read_text(encoding="ascii")
        self.assertIn(OTHER_KEY + ')pem", false}', text)
        self.assertIn(self.everybodys + ')pem", true}', text)

    def test_a_release_build_has_its_key_alone(self):
        self.assertEqual(self.write("OFF", self.own).returncode, 0)
        text = self.written.read_text(encoding="ascii")
        self.assertIn(OTHER_KEY + ')pem", false}', text)
        self.assertNotIn(self.everybodys, text)
        self.assertEqual(text.count("BEGIN PUBLIC KEY"), 1)
        self.assertNotIn("PRIVATE KEY", self.issuer.read_text(encoding="ascii"))

    def test_a_release_build_without_a_key_is_refused_with_what_to_do(self):
        self.refused(self.write("OFF", ""), "release build", "-DMEMKV_LICENSE_KEY=PATH")

    def test_a_key_that_is_none_is_refused(self):
        self.refused(self.write("OFF", self.folder / "nothing.pem"), "nothing.pem, which is not there")
        self.refused(self.write("OFF", PAIR + "/development-private.pem"), "not a public key in PEM form")
        for text in ("hello", "", OTHER_KEY + OTHER_KEY, OTHER_KEY.replace("A", "-", 1), COMPRESSED_KEY,
                     SMALL_KEY, OTHER_KEY.replace("A", "", 1), OTHER_KEY + ')pem"'):
            (self.folder / "text.pem").write_text(text, encoding="ascii")
            self.refused(self.write("OFF", self.folder / "text.pem"), "not a public key in PEM form")

    def test_the_development_key_is_no_release_key(self):
        copy = self.folder / "copy.pem"
        lines = self.everybodys.splitlines()
        once_more = "".join(lines[1:-1])
        wrapped = [once_more[at : at + 40] for at in range(0, len(once_more), 40)]
        for text in (self.everybodys + "\n", self.everybodys.replace("\n", "\r\n"), "\n " + self.everybodys,
                     "\n".join([lines[0], *wrapped, lines[-1]]), "\n".join([lines[0], once_more, lines[-1]])):
            copy.write_bytes(text.encode("ascii"))
            self.refused(self.write("OFF", copy), "the development key, whose private half everybody has")

    def test_a_key_that_is_wrapped_otherwise_is_written_as_openssl_does(self):
        self.own.write_bytes(OTHER_KEY.replace("\n", "\r\n").encode("ascii"))
        self.assertEqual(self.write("OFF", self.own).returncode, 0)
        self.assertIn(OTHER_KEY + ')pem", false}', self.written.read_text(encoding="ascii"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
