"""memkv-license: tool_test.py PROGRAM."""

import os
import re
import stat
import subprocess
import sys
import tempfile
import unittest

PROGRAM = sys.argv[1]


def tool(*words, stdin=""):
    return subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=False, input=stdin,
                          timeout=60)


class memkv_license(unittest.TestCase):
    def setUp(self):
        keeper = tempfile.TemporaryDirectory()
        self.addCleanup(keeper.cleanup)
        self.folder = keeper.name

    def path(self, name):
        return os.path.join(self.folder, name)

    def make_keys(self):
        done = tool("key", self.path("private.pem"), self.path("public.pem"))
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def refused(self, done, *parts):
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, r"\Amemkv-license: [^\n]+\n\Z")
        for part in parts:
            self.assertIn(part, done.stderr)

    def test_what_is_issued_is_shown(self):
        self.make_keys()
        for plan in ["Free", "Enterprise", "EnterpriseLite", "EnterprisePlus"]:
            made = tool("issue", "--plan", plan, "--days", "3", "--org", "Org of mine", "--account", "12",
                        "--subject", "a@example.com", "--key", self.path("private.pem"))
            self.assertEqual((made.returncode, made.stderr), (0, ""))
            self.assertRegex(made.stdout, r"\AeyJ[A-Za-z0-9_.-]+\n\Z")
            shown = tool("show", "--key", self.path("public.pem"), "-", stdin=made.stdout)
            self.assertEqual((shown.returncode, shown.stderr), (0, ""))
            lines = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in shown.stdout.splitlines())
            self.assertEqual(lines["plan"], plan)
            self.assertEqual(lines["organization"], "Org of mine")
            self.assertEqual(lines["account"], "12")
            self.assertEqual(lines["subject"], "a@example.com")
            self.assertEqual(lines["key"], "release")
            # This build does not know the key.
            self.refused(tool("show", "-", stdin=made.stdout), "signature")

    def test_keys_are_private_and_never_overwritten(self):
        self.make_keys()
        self.assertEqual(stat.S_IMODE(os.stat(self.path("private.pem")).st_mode), 0o600)
        self.refused(tool("key", self.path("private.pem"), self.path("other.pem")), "private.pem", "exists")
        self.assertFalse(os.path.exists(self.path("other.pem")))

    def test_a_file_is_replaced_as_a_whole_and_kept_while_it_is_good(self):
        self.make_keys()
        words = ["--output", self.path("license"), "--key", self.path("private.pem")]
        self.assertEqual(tool("issue", *words).returncode, 0)
        with open(self.path("license"), encoding="ascii") as file:
            first = file.read()
        self.assertEqual(sorted(os.listdir(self.folder)), ["license", "private.pem", "public.pem"])
        self.assertEqual(tool("issue", *words, "--days", "5").returncode, 0)
        with open(self.path("license"), encoding="ascii") as file:
            self.assertNotEqual(file.read(), first)

    @unittest.skipIf(tool("issue").returncode != 0, "a release build")
    def test_the_development_key_is_the_default_and_a_good_license_is_kept(self):
        license_path = self.path("license")

        def issued(*words):
            done = tool("issue", "--output", license_path, *words)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
            with open(license_path, encoding="ascii") as file:
                return file.read()

        first = issued("--days", "30", "--keep-days", "20")
        self.assertIn("development", tool("show", license_path).stdout)
        self.assertEqual(issued("--days", "30", "--keep-days", "20"), first)
        self.assertNotEqual(issued("--days", "30", "--keep-days", "31"), first)
        second = issued("--plan", "Free", "--keep-days", "1")
        self.assertIn("Free", tool("show", license_path).stdout)
        # What is there and is no licence is replaced.
        for text in ["", "rubbish", second[:-10]]:
            with open(license_path, "w", encoding="ascii") as file:
                file.write(text)
            self.assertNotEqual(issued("--keep-days", "1"), text)

    def test_what_cannot_be_done_is_said_in_one_sentence(self):
        self.refused(tool("issue", "--plan", "Platinum"), "--plan must be Free")
        self.refused(tool("issue", "--days", "0"), "--days")
        self.refused(tool("issue", "--days", "36501"), "--days")
        self.refused(tool("issue", "--key", self.path("none.pem")), "none.pem cannot be read")
        self.make_keys()
        self.refused(tool("issue", "--key", self.path("public.pem")), "no private key")
        self.refused(tool("issue", "--org", "a\nb", "--key", self.path("private.pem")), "org")
        self.refused(tool("issue", "--output", self.path("no/such/folder"), "--key",
                          self.path("private.pem")), "cannot be made")
        self.refused(tool("show", self.path("none")), "cannot be read")
        self.refused(tool("show", "-", stdin="rubbish"), "not a JWT")
        self.refused(tool("revoke"), "revoke")
        wrong = self.path("p256.pem")
        subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256",
                        "-out", wrong], check=True, capture_output=True)
        self.refused(tool("issue", "--key", wrong), "nobody would accept it")

    def test_help_names_the_commands(self):
        done = tool("--help")
        self.assertEqual(done.returncode, 0)
        for word in ["issue", "show", "key"]:
            self.assertIn(word, done.stdout)
        self.assertEqual(tool().returncode, 1)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
