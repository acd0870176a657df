"""The program itself: what it prints where, and its exit codes."""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python"))

from development_license import environment as licensed  # noqa: E402

PROGRAM = pathlib.Path(sys.argv[1]).resolve()
KEY = "0f1e2d3c4b5a69788796a5b4c3d2e1f00123456789abcdef0fedcba987654321"


def memkv(*words, **variables):
    return subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=False,
                          env=licensed(PROGRAM, **variables), stdin=subprocess.DEVNULL, timeout=30)


OFFLINE = ["reset", "verify", "fsck", "health"]


class refusals(unittest.TestCase):
    def refused(self, done, *parts):
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stdout, "")
        self.assertRegex(done.stderr, r"\Amemkv: [^\n]+\n\Z")
        for part in parts:
            self.assertIn(part, done.stderr)


class program(refusals):
    def test_the_version_is_a_tag_or_a_commit_or_neither(self):
        for flag in ["--version", "-V"]:
            done = memkv(flag)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertRegex(done.stdout,
                             r"\Amemkv (DEVELOPMENT(\.[0-9a-f]{7})?|[A-Za-z0-9][A-Za-z0-9._+-]*)\n\Z")
            self.assertIsNone(re.fullmatch(r"memkv [0-9.]+\n", done.stdout))

    def test_help_at_every_level_goes_to_standard_output(self):
        of_client = [["client", word] for word in ["put", "get", "exists", "delete", "stat"]]
        of_drive = [["drive", word] for word in OFFLINE]
        for words in [[], ["setup"], ["start"], ["client"], ["drive"]] + of_client + of_drive:
            done = memkv(*words, "--help")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIn("Usage: " + " ".join(["memkv", *words]), done.stdout)

    def test_mistakes_are_one_sentence_and_exit_code_one(self):
        self.refused(memkv(), "needs a command")
        self.refused(memkv("doc"), 'this build of memkv has no command "doc"')
        self.refused(memkv("start", "--cofnig", "x"), "has no flag --cofnig")
        self.refused(memkv("--help-markdown=x"), "use cli or configuration")

    def test_output_that_cannot_be_written_is_an_error(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full")
        with open("/dev/full", "wb") as full:
            done = subprocess.run([PROGRAM, "--help"], stdout=full, stderr=subprocess.PIPE, check=False)
        self.assertEqual(done.returncode, 1)


class drives(refusals):
    """What can be refused without a block device; setup_test has the rest."""

    def setUp(self):
        keeper = tempfile.TemporaryDirectory()
        self.addCleanup(keeper.cleanup)
        self.image = os.path.join(keeper.name, "image")
        with open(self.image, "wb") as file:
            file.truncate(64 << 20)

    def bytes(self):
        with open(self.image, "rb") as file:
            return file.read()

    def test_setup_names_what_it_cannot_take(self):
        self.refused(memkv("setup"), "needs --drives PATH")
        self.refused(memkv("setup", "--drives", "/dev/nonexistent"), "/dev/nonexistent does not exist")
        for path in [self.image, "/dev/null", "/"]:
            self.refused(memkv("setup", "--force", "--drives", path), f"{path} is not a block device")
        for size in ["0", "100", "65536"]:
            self.refused(memkv("setup", "--drives", "/dev/x", "--shard-size", size), "power of two", size)
        self.assertFalse(any(self.bytes()))

    def test_offline_commands_refuse_what_was_never_a_drive(self):
        for command in OFFLINE:
            self.refused(memkv("drive", command), "needs PATH")
            self.refused(memkv("drive", command, "/dev/nonexistent"), "/dev/nonexistent does not exist")
            self.refused(memkv("drive", command, "/"), "/ is neither a block device nor a regular file")
            self.refused(memkv("drive", command, self.image), self.image, "never memkv's")
        self.assertFalse(any(self.bytes()))
        with open(self.image, "r+b") as file:
            file.write(b"XFSB")
        before = self.bytes()
        for command in OFFLINE:
            self.refused(memkv("drive", command, self.image), self.image, "never memkv's")
        self.assertEqual(self.bytes(), before)


class start(refusals):
    def setUp(self):
        self.keeper = tempfile.TemporaryDirectory()
        self.addCleanup(self.keeper.cleanup)
        self.log = os.path.join(self.keeper.name, "log")

    def start(self, text, *words, **variables):
        config = os.path.join(self.keeper.name, "config.yaml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(text)
        return memkv("start", "--config", config, "--log-file", self.log, *words, **variables)

    def test_a_configuration_that_is_not_there_is_refused(self):
        self.refused(memkv("start", "--config", "/nonexistent/config.yaml"), "/nonexistent/config.yaml: ",
                     "--config")

    def test_without_a_key_nothing_starts(self):
        text = "storage: { mode: memory, drives: [{ media: memory, max_size: 16 MiB }] }\n"
        self.refused(self.start(text), "network.auth_key is missing", "openssl rand -hex 32")
        self.refused(self.start(text, MEMKV_AUTH_KEY="00" * 32), "MEMKV_AUTH_KEY must hold a key")

    def test_a_raw_drive_that_is_not_there_or_no_device_is_refused_with_the_reason(self):
        memory = "memory: { max_size: 16 MiB }\nnetwork: { address: '127.0.0.1:0' }\n"
        text = memory + "storage: { mode: direct, drives: [{ media: %s }] }\n"
        self.refused(self.start(text % "/dev/nonexistent", MEMKV_AUTH_KEY=KEY),
                     "/dev/nonexistent does not exist")
        self.refused(self.start(text % "/dev/null", MEMKV_AUTH_KEY=KEY), "/dev/null is not a block device")

    def test_mistakes_name_line_and_key(self):
        text = "storage:\n  mode: memory\n  shard_sise: 4 KiB\n"
        self.refused(self.start(text, MEMKV_AUTH_KEY=KEY), "line 3", "storage.shard_sise",
                     "did you mean storage.shard_size?")

    def test_bad_flags_are_refused(self):
        text = "storage: { mode: memory, drives: [{ media: memory, max_size: 16 MiB }] }\n"
        self.refused(self.start(text, "--log-level", "loud", MEMKV_AUTH_KEY=KEY), "--log-level", "loud")
        self.refused(self.start(text, "--log-write-timing=0", MEMKV_AUTH_KEY=KEY), "--log-write-timing")
        self.refused(self.start(text, "--fault-injection=maybe", MEMKV_AUTH_KEY=KEY), "=force")

    def test_without_a_license_nothing_starts(self):
        drive = os.path.join(self.keeper.name, "drive0")
        text = f"storage: {{ mode: file, drives: [{{ media: {drive}, max_size: 16 MiB }}] }}\n"
        nothing = {name: "" for name in ["MEMKV_LICENSE", "AISTOR_LICENSE", "MINIO_LICENSE"]}
        home = {"HOME": self.keeper.name, "MEMKV_AUTH_KEY": KEY}
        if not os.path.exists("/etc/memkv"):
            self.refused(self.start(text, **nothing, **home), "no license found", "--license",
                         "MINIO_LICENSE", "/etc/memkv/memkv.license",
                         self.keeper.name + "/.minio/minio.license", "set MEMKV_LICENSE", "docs/license.md")
        # The first place that names one decides, whatever the others hold.
        wrong = os.path.join(self.keeper.name, "license")
        self.refused(self.start(text, "--license", wrong, **home), "--license: ", wrong, "cannot be read")
        with open(wrong, "w", encoding="ascii") as file:
            file.write("eyJ.eyJ.eyJ\n")
        self.refused(self.start(text, "--license", wrong, **home), "--license: ", wrong, "the license")
        for name in ["MEMKV_LICENSE", "AISTOR_LICENSE", "MINIO_LICENSE"]:
            self.refused(self.start(text, **{**nothing, name: wrong}, **home), name + ": ", wrong)
        unsigned = "eyJhbGciOiJub25lIn0.eyJwbGFuIjoiRnJlZSJ9.AAAA"
        self.refused(self.start(text, "--license", unsigned, **home), "--license: ", '"none"', "ES384")
        self.assertFalse(os.path.exists(drive))
        with open(self.log, encoding="utf-8") as file:
            self.assertIn("ERROR memkv::start", file.read())

    def test_a_store_larger_than_the_memory_is_refused_with_a_hint(self):
        text = ("memory: { max_size: 64 TiB }\n"
                "storage: { mode: memory, drives: [{ media: memory, max_size: 16 MiB }] }\n")
        self.refused(self.start(text, MEMKV_AUTH_KEY=KEY), "80 % of the available memory", "lower them")
        with open(self.log, encoding="utf-8") as file:
            lines = file.read()
        self.assertIn("ERROR memkv::start", lines)
        self.assertNotIn(KEY, lines)

    def test_a_server_says_where_it_serves_and_ends_with_zero(self):
        drive = os.path.join(self.keeper.name, "drive0")
        config = os.path.join(self.keeper.name, "config.yaml")
        with open(config, "w", encoding="utf-8") as file:
            file.write("network:\n"
                       "  address: 127.0.0.1:0\n"
                       f"  auth_key: {KEY}\n"
                       "memory: { max_size: 32 MiB }\n"
                       f"storage: {{ mode: file, drives: [{{ media: {drive}, max_size: 64 MiB }}] }}\n"
                       "logging: { format: json }\n")
        os.chmod(config, 0o644)
        environment = licensed(PROGRAM, RUST_LOG="what[ever]")
        for last_signal in [signal.SIGINT, signal.SIGTERM]:
            if os.path.exists(self.log):
                os.unlink(self.log)
            words = ["start", "--config", config, "--log-file", self.log, "--license", ""]
            server = subprocess.Popen([PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                      text=True, env=environment)
            try:
                self.assertRegex(server.stdout.readline(),
                                 r"\Amemkv: serving on 127\.0\.0\.1:[1-9][0-9]*\n\Z")
                self.assertRegex(server.stdout.readline(),
                                 r"\Amemkv: administration on http://127\.0\.0\.1:[1-9][0-9]*\n\Z")
                server.send_signal(last_signal)
                output = server.communicate(timeout=30)
            finally:
                server.kill()
            self.assertEqual((server.returncode, output), (0, ("", "")))
            with open(self.log, encoding="utf-8") as file:
                lines = [json.loads(line) for line in file]
            self.assertTrue(all({"timestamp", "level", "message", "target"} <= set(line) for line in lines))
            # What the machine lacks is not the same everywhere; what the configuration lacks is.
            warnings = [line["message"] for line in lines
                        if line["level"] == "WARN" and line["target"] != "memkv::doctor"]
            for part in ["RUST_LOG is ignored", "chmod 600"]:
                self.assertEqual(len([w for w in warnings if part in w]), 1, (part, warnings))
            self.assertEqual(len(warnings), 2, warnings)
            checked = [line for line in lines if line["message"].startswith("checked the machine")]
            self.assertEqual([(line["message"], line["failed"]) for line in checked],
                             [("checked the machine; memkv doctor checks more", 0)])
            self.assertFalse([line for line in lines if line["level"] == "ERROR"])
            self.assertNotIn(KEY, json.dumps(lines))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
