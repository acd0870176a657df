"""What a build calls itself: VERSION_TAG, else DEVELOPMENT.<7 digits>, else DEVELOPMENT."""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

CMAKE, SCRIPT = sys.argv[1:3]


def run(*words, **more):
    return subprocess.run(words, capture_output=True, text=True, check=False, **more)


class version(unittest.TestCase):
    def setUp(self):
        self.keeper = tempfile.TemporaryDirectory()
        self.addCleanup(self.keeper.cleanup)
        self.tree = pathlib.Path(self.keeper.name) / "tree"
        self.tree.mkdir()
        self.file = pathlib.Path(self.keeper.name) / "version.cpp"

    def write(self, *options, **variables):
        environment = {name: value for name, value in os.environ.items() if name != "VERSION_TAG"}
        # Repositories above the temporary directory are none of ours.
        environment["GIT_CEILING_DIRECTORIES"] = self.keeper.name
        environment.update(variables)
        return run(CMAKE, f"-DSOURCE_DIRECTORY={self.tree}", f"-DVERSION_FILE={self.file}", *options, "-P",
                   SCRIPT, env=environment)

    def text(self, **variables):
        done = self.write(**variables)
        self.assertEqual(done.returncode, 0, done.stderr)
        return self.file.read_text(encoding="utf-8").split('return "')[1].split('"')[0]

    def commit(self):
        def git(*words):
            identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
            self.assertEqual(run("git", "-C", self.tree, *identity, *words).returncode, 0)
        git("init", "-q")
        git("commit", "-q", "--allow-empty", "-m", "one")
        return run("git", "-C", self.tree, "rev-parse", "HEAD").stdout.strip()

    def test_the_tag_wins(self):
        self.commit()
        tag = "RELEASE.2026-05-26T08-06-11Z"
        self.assertEqual(self.text(VERSION_TAG=tag), tag)

    def test_a_commit_is_shown_by_seven_digits(self):
        self.assertEqual(self.text(), "DEVELOPMENT")
        self.assertEqual(self.text(VERSION_TAG=""), "DEVELOPMENT")
        commit = self.commit()
        self.assertEqual(self.text(), "DEVELOPMENT." + commit[:7])

    def test_a_tree_inside_another_repository_has_no_commit(self):
        self.commit()
        self.tree = self.tree / "inside"
        self.tree.mkdir()
        self.assertEqual(self.text(), "DEVELOPMENT")

    def test_without_git_there_is_no_commit(self):
        self.commit()
        self.assertEqual(self.text(PATH=str(self.tree)), "DEVELOPMENT")

    def test_a_tag_that_is_no_tag_stops_the_build(self):
        for tag in ['x"; int y = 0; "', "a b", "-x", "x" * 65, "a\\b"]:
            done = self.write(VERSION_TAG=tag)
            self.assertNotEqual(done.returncode, 0, tag)
            self.assertIn("VERSION_TAG", done.stderr)
            self.assertFalse(self.file.exists())

    def test_a_release_accepts_no_development_licence(self):
        done = self.write("-DDEVELOPMENT_LICENSES=ON", VERSION_TAG="one")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("MEMKV_LICENSE_DEVELOPMENT=OFF", done.stderr)
        self.assertFalse(self.file.exists())
        self.assertEqual(self.write("-DDEVELOPMENT_LICENSES=ON").returncode, 0)
        self.assertEqual(self.write("-DDEVELOPMENT_LICENSES=OFF", VERSION_TAG="one").returncode, 0)

    def test_an_unchanged_version_leaves_the_file_alone(self):
        self.text(VERSION_TAG="one")
        os.utime(self.file, (1, 1))
        self.text(VERSION_TAG="one")
        self.assertEqual(self.file.stat().st_mtime, 1)
        self.text(VERSION_TAG="two")
        self.assertNotEqual(self.file.stat().st_mtime, 1)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
