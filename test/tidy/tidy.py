"""Holds the tree to its own rules. `tidy.py ROOT` prints one line a problem and exits with 1 if there is any.

The table of rooms below is the one of ARCHITECTURE.md.
"""
import functools
import pathlib
import re
import sys

LINE_COLUMNS_MAX = 110

ROOMS = ["wire", "engine", "verbs", "actors", "admin", "client", "cli", "bench", "test"]
# What of wire/ engine and verbs may use: loads and stores, checksums, names and numbers; nothing of the
# protocol.
LEAF = {f"wire/{name}.hpp" for name in ["assert", "bytes", "crc32c", "key_id", "limits", "status"]}
MAY_INCLUDE = {
    "wire": {"wire"},
    "engine": {"engine"} | LEAF,
    "verbs": {"verbs"} | LEAF,
    "actors": {"actors", "engine", "wire", "verbs"},
    "admin": {"admin", "actors", "engine", "wire"},
    "client": {"client", "wire", "verbs"},
    "cli": {"cli", "admin", "actors", "client", "engine", "wire", "verbs"},
    "bench": set(ROOMS),
    "test": set(ROOMS),
}
# Libraries, and the files that may include them. test/ may include everything.
LIBRARIES = [
    (r"caf/", r"(actors/(?!log\.)|admin/|cli/|bench/)"),
    (r"liburing(\.h|/)", r"(engine/uring_device\.cpp|actors/(ring_actor|file_table)\.[hc]pp)$"),
    (r"openssl/", r"(wire/(auth|license|license_issuer)\.cpp|admin/tls[a-z_]*\.cpp|cli/doctor_tls\.cpp)$"),
    (r"(isa-l|isa-l\.h|isa-l/|crc\.h|crc64\.h)", r"wire/crc32c\.cpp$"),
    (r"yaml-cpp/", r"(cli/config[a-z_]*\.cpp|client/config\.cpp)$"),
    (r"httplib\.h", r"admin/"),
    (r"prometheus/", r"admin/"),
    (r"infiniband/", r"verbs/ibverbs_[a-z_]+\.[hc]pp$"),
    (r"benchmark/", r"bench/"),
    (r"nlohmann/", r"(admin/|bench/|cli/|wire/license(_issuer)?\.cpp$)"),
    (r"zlib\.h", r"bench/"),
]
# Parts of the system that rooms without threads or sockets must not touch.
SOCKETS = r"sys/socket\.h|netinet/.*|arpa/.*|sys/epoll\.h|poll\.h"
SYSTEM = [
    ("wire", f"(thread|mutex|shared_mutex|condition_variable|future|{SOCKETS})"),
    ("engine", f"(thread|condition_variable|future|{SOCKETS})"),
    ("verbs", f"(thread|mutex|shared_mutex|condition_variable|future|{SOCKETS})"),
]
# What of engine/ is shared between threads, by the contract at the top of its header.
ENGINE_SHARED = r"engine/(index|buffer_pool|drive_store_core|drive_faults)\.[hc]pp$"

# Spelt in pieces so that this file does not contain them.
FORBIDDEN = [
    ("TO" + "DO", r"\bTO" + r"DO\b"),
    ("FIX" + "ME", r"\bFIX" + r"ME\b"),
    ("X" + "XX", r"\bX" + r"XX\b"),
    ("for " + "now", r"(?i)\bfor " + r"now\b"),
    ("place" + "holder", r"(?i)\bplace" + r"holders?\b"),
    ("st" + "ub", r"(?i)\bst" + r"ub(s|bed)?\b"),
    ("the number of an issue", r"(?i)\bissue #?\d"),
    ("as the " + "issue", r"(?i)\bas the " + r"issue\b"),
    ("A" + "I", r"\bA" + r"I\b"),
    ("ag" + "ent", r"(?i)\bag" + r"ents?\b"),
    ("a package registry", r"(?i)\b(deb\.deb" + r"ian\.org|pypi\.o" + r"rg|crates\.i" + r"o)"),
    ("a path of one machine", r"(?<![\w.$}])/(wo" + r"rk|tm" + r"p|ro" + r"ot|ho" + r"me)/"),
]
SLEEP = r"\b(sleep_for|sleep_until|usleep|nanosleep|sleep)\s*\("

SKIPPED_DIRECTORIES = {".git", ".cache", "__pycache__", "build"}
CODE = {".hpp", ".cpp"}
TEXT = CODE | {".py", ".md", ".txt", ".cmake", ".json", ".yaml", ".yml", ".sh", ""}
PICTURES = {".png"}
BROKEN_LINES_ALLOWED = {".md", ".json", ".yaml", ".yml"}


def files_of(root):
    """Path relative to the root, and text, of every text file."""
    found = {}
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if any(part in SKIPPED_DIRECTORIES or part.startswith("build") for part in relative.parts[:-1]):
            continue
        if not path.is_file() or path.is_symlink() or path.name == ".git":  # a file in a second work tree
            continue
        if path.suffix in PICTURES:
            found[relative.as_posix()] = ""  # there, for the pages that link to it
        if path.suffix not in TEXT:
            continue
        try:
            found[relative.as_posix()] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return found


@functools.lru_cache(maxsize=None)
def includes_of(text):
    """Line number, '"' or '<', and name of each include."""
    found = []
    for match in re.finditer(r'(?m)^[ \t]*#[ \t]*include[ \t]*(["<])([^">\n]+)[">]', text):
        found.append((text.count("\n", 0, match.start()) + 1, match.group(1), match.group(2)))
    return found


def room_of(name):
    room = name.split("/", 1)[0]
    return room if "/" in name and room in ROOMS else None


def is_code(name):
    return pathlib.PurePosixPath(name).suffix in CODE and room_of(name) is not None


def check_rooms(files):
    for name, text in files.items():
        if not is_code(name):
            continue
        room = room_of(name)
        for number, form, included in includes_of(text):
            where = f"{name}:{number}"
            if form == '"':
                beside = name.rsplit("/", 1)[0] + "/" + included
                if room == "test" and "/" not in included and beside in files:
                    continue
                if included not in files:
                    yield f"{where}: \"{included}\" is not a file of the tree; includes begin at its root"
                elif room_of(included) not in MAY_INCLUDE[room] and included not in MAY_INCLUDE[room]:
                    yield f"{where}: {room}/ must not include {included}"
                continue
            if room_of(included) is not None and included in files:
                yield f"{where}: write \"{included}\" in quotes"
            if room == "test":
                continue
            for library, allowed in LIBRARIES:
                if re.match(library, included) and not re.match(allowed, name):
                    yield f"{where}: <{included}> must not be included here"
            for quiet, forbidden in SYSTEM:
                if room == quiet and re.fullmatch(forbidden, included) and not re.match(ENGINE_SHARED, name):
                    yield f"{where}: {room}/ knows neither threads nor sockets, so not <{included}>"
            locks = included in ("mutex", "shared_mutex")
            if room == "engine" and locks and not re.match(ENGINE_SHARED, name):
                yield f"{where}: this part of engine/ belongs to one thread, so not <{included}>"


def check_headers(files):
    users = {}
    for name, text in files.items():
        if is_code(name):
            for _, form, included in includes_of(text):
                if form == '"':
                    users.setdefault(included, set()).add(name)
                    users.setdefault(name.rsplit("/", 1)[0] + "/" + included, set()).add(name)
    for name, text in files.items():
        if not name.endswith(".hpp") or room_of(name) is None:
            continue
        if "#pragma once" not in text:
            yield f"{name}:1: a header begins with #pragma once after its comment"
        if not text.startswith("//"):
            yield f"{name}:1: a header begins with a comment that says what it is"
        if not users.get(name, set()) - {name, name.removesuffix(".hpp") + ".cpp"}:
            yield f"{name}:1: nobody includes this header"


def check_lines(name, text):
    if pathlib.PurePosixPath(name).suffix in BROKEN_LINES_ALLOWED or name == "LICENSE":
        return
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > LINE_COLUMNS_MAX:
            yield f"{name}:{number}: {len(line)} columns, at most {LINE_COLUMNS_MAX}"
        if line != line.rstrip() and line.strip():
            yield f"{name}:{number}: blanks at the end of the line"


def check_words(name, text):
    if name == "LICENSE" or name.startswith("test/tidy/"):
        return
    suspects = [(what, pattern) for what, pattern in FORBIDDEN if re.search(pattern, text)]
    for number, line in enumerate(text.splitlines() if suspects else [], 1):
        for what, pattern in suspects:
            if re.search(pattern, line):
                yield f"{name}:{number}: {what} does not belong into the tree"


def check_sleeps(name, text):
    if name.startswith("test/unit/") and re.search(SLEEP, text):
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(SLEEP, line) and pathlib.PurePosixPath(name).suffix in CODE:
                yield f"{name}:{number}: a unit test does not sleep; give it a clock"


def check_documents(files):
    for name, text in files.items():
        if not name.endswith(".md"):
            continue
        prose = re.sub(r"(?ms)^```.*?^```", "", text)
        titles = re.findall(r"(?m)^# ", prose)
        if len(titles) != 1 or not text.startswith("# "):
            yield f"{name}:1: a page begins with its only title"
        offsets = re.search(r"(?mi)^\|\s*offset\s*\|\s*(size|bytes|length)\b", text)
        if name.startswith("docs/formats/") and not offsets:
            yield f"{name}:1: a format's page has a table of offsets and sizes"
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", prose):
            base = pathlib.PurePosixPath(name).parent
            parts = []
            for part in (base / target).parts:
                if part == "..":
                    parts = parts[:-1]
                else:
                    parts.append(part)
            linked = "/".join(parts)
            if linked not in files and not any(other.startswith(linked + "/") for other in files):
                yield f"{name}:1: the link to {target} leads nowhere"
        # Decisions are history, and may name what has moved since.
        if not name.startswith("docs/decisions/"):
            for source in re.findall(r"`((?:[a-z_]+/)+[a-z_0-9]+\.(?:cpp|hpp|py))`", prose):
                if room_of(source) is not None and source not in files:
                    yield f"{name}:1: {source} is not a file of the tree"


CHECKS_OF_THE_TREE = [check_rooms, check_headers, check_documents]
CHECKS_OF_A_FILE = [check_lines, check_words, check_sleeps]


@functools.lru_cache(maxsize=None)
def problems_of_file(name, text):
    return [problem for check in CHECKS_OF_A_FILE for problem in check(name, text)]


def problems_of(root):
    files = files_of(pathlib.Path(root))
    problems = [problem for check in CHECKS_OF_THE_TREE for problem in check(files)]
    for name, text in files.items():
        problems += problems_of_file(name, text)
    return problems


def main():
    problems = problems_of(sys.argv[1])
    for problem in problems:
        print(problem)
    print(f"tidy: {len(problems)} problem(s)")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
