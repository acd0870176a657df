"""Which keys a build is given: keys_test.py CMAKE SCRIPT LICENSE_DIRECTORY, the last that of the pair."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

CMAKE, SCRIPT, PAIR = sys.argv[1:4]
OTHER_KEY = """-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEqaPF0vXnFuCKDTxCaUKo4bkZlqHB8F0J
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
        (self.folder / "text.pem").write_text("hello", encoding="ascii")
        self.refused(self.write("OFF", self.folder / "text.pem"), "not a public key in PEM form")

    def test_the_development_key_is_no_release_key(self):
        copy = self.folder / "copy.pem"
        copy.write_text(self.everybodys + "\n", encoding="ascii")
        self.refused(self.write("OFF", copy), "the development key, whose private half everybody has")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
