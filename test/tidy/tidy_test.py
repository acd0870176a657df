"""The tree keeps its rules, and each rule is seen to fail when it is broken in a copy of the tree."""
import pathlib
import shutil
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import tidy  # noqa: E402

ROOT = pathlib.Path(sys.argv[1]).resolve()

# A file to plant in each room, and the include it must not have. The room above, a confined library, or both.
FORBIDDEN_INCLUDES = {
    "wire": ['"engine/index.hpp"', "<caf/actor.hpp>", "<sys/socket.h>", "<thread>", "<openssl/evp.h>"],
    "engine": ['"actors/log.hpp"', '"wire/auth.hpp"', "<caf/actor.hpp>", "<thread>", "<liburing.h>"],
    "verbs": ['"wire/auth.hpp"', '"engine/index.hpp"', "<caf/actor.hpp>"],
    "actors": ['"cli/config.hpp"', '"client/client.hpp"', "<httplib.h>", "<yaml-cpp/yaml.h>", "<liburing.h>"],
    "admin": ['"cli/config.hpp"', '"client/client.hpp"', "<liburing.h>", "<openssl/evp.h>"],
    "client": ['"engine/index.hpp"', '"actors/log.hpp"', "<caf/actor.hpp>"],
    "cli": ['"bench/trace.hpp"', '"test/tidy/nothing.hpp"', "<httplib.h>", "<liburing.h>", "<openssl/evp.h>"],
    "bench": ["<openssl/evp.h>", "<liburing.h>"],
    "test": ['"nothing/at_all.hpp"'],
}


class the_tree(unittest.TestCase):
    def test_keeps_its_rules(self):
        problems = tidy.problems_of(ROOT)
        self.assertEqual(problems, [], "\n" + "\n".join(problems))

    def test_has_every_room_that_the_table_names(self):
        for room in tidy.ROOMS:
            self.assertTrue(room in tidy.MAY_INCLUDE and room in FORBIDDEN_INCLUDES)


class a_copy_of_the_tree(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.keeper = tempfile.TemporaryDirectory()
        cls.copy = pathlib.Path(cls.keeper.name) / "copy"

        def left_out(directory, names):
            return [n for n in names if n in tidy.SKIPPED_DIRECTORIES or
                    (n.startswith("build") and pathlib.Path(directory) == ROOT)]
        shutil.copytree(ROOT, cls.copy, ignore=left_out)
        cls.before = set(tidy.problems_of(cls.copy))

    @classmethod
    def tearDownClass(cls):
        cls.keeper.cleanup()

    def planted(self, name, text):
        """The problems that one more file brings."""
        path = self.copy / name
        self.assertFalse(path.exists(), name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        try:
            return set(tidy.problems_of(self.copy)) - self.before
        finally:
            path.unlink()

    def check_found(self, name, text, part):
        found = self.planted(name, text)
        self.assertTrue(any(problem.startswith(name + ":") and part in problem for problem in found),
                        f"{name} with {text!r} gave {found}")

    def test_is_like_the_original(self):
        self.assertEqual(self.before, set(tidy.problems_of(ROOT)))

    def test_fails_for_a_forbidden_include_in_each_room(self):
        for room, includes in FORBIDDEN_INCLUDES.items():
            for included in includes:
                with self.subTest(room=room, included=included):
                    self.check_found(f"{room}/planted_file.cpp", f"#include {included}\n", "file.cpp:1")

    def test_accepts_the_includes_that_the_table_allows(self):
        for name, included in [
                ("engine/planted_file.cpp", '"wire/bytes.hpp"'),
                ("cli/planted_file.cpp", '"wire/auth.hpp"'),
                ("actors/planted_file.cpp", "<caf/actor.hpp>"),
                ("admin/planted_file.cpp", "<httplib.h>"),
                ("test/unit/planted_file.cpp", "<liburing.h>"),
        ]:
            with self.subTest(name=name):
                self.assertEqual(self.planted(name, f"#include {included}\n"), set())

    def test_fails_for_each_other_rule(self):
        header = "// A header.\n#pragma once\n"
        for name, text, part in [
                ("wire/planted_file.cpp", "// " + "x" * 108 + "\n", "111 columns"),
                ("wire/planted_file.cpp", "int x; \n", "blanks at the end"),
                ("scripts/planted_file", "# " + "x" * 120 + "\n", "122 columns"),
                ("engine/planted_file.hpp", header, "nobody includes"),
                ("engine/planted_file.hpp", "#pragma once\n", "begins with a comment"),
                ("engine/planted_file.hpp", "// A header.\n", "#pragma once"),
                ("cli/planted_file.cpp", "// TO" + "DO: later\n", "does not belong"),
                ("cli/planted_file.cpp", "// fine for " + "now\n", "does not belong"),
                ("docs/planted_file.md", "# Title\n\nissue " + "12 says so\n", "does not belong"),
                ("scripts/planted_file", "cd /wo" + "rk/main\n", "a path of one machine"),
                ("scripts/planted_file", "cat /tm" + "p/x\n", "a path of one machine"),
                ("test/unit/planted_file.cpp", "void f() { sleep_for(t); }\n", "does not sleep"),
                ("docs/planted_file.md", "# One\n\n# Two\n", "only title"),
                ("docs/planted_file.md", "no title\n", "only title"),
                ("docs/planted_file.md", "# One\n\n[x](nowhere.md)\n", "leads nowhere"),
                ("docs/planted_file.md", "# One\n\nSee `wire/nowhere.cpp`.\n", "not a file of the tree"),
                ("docs/formats/planted_file.md", "# A format\n\nBytes, somehow.\n", "table of offsets"),
        ]:
            with self.subTest(name=name, part=part):
                self.check_found(name, text, part)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
