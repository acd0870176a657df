"""The kernel of the virtual machine and the small root file system that it starts with.

Debian's kernel package is downloaded from the backports of the release and unpacked, never installed: apt
runs with a state directory of its own below the cache, on a source derived from the machine's own entry, and
nothing of the machine's configuration changes. What is there already is used again, without the network.

Threading: any number of processes; a lock on the cache lets one prepare it while the others wait.
Errors: Unavailable, with one sentence that says what to do.
"""

from __future__ import annotations

import fcntl
import hashlib
import lzma
import os
import pathlib
import re
import shutil
import stat
import subprocess

RELEASE = "bookworm"
SUITE = RELEASE + "-backports"
VERSION = "6.12"
PACKAGE = re.compile(rf"linux-image-{re.escape(VERSION)}\.[0-9]+\+deb12-amd64(-unsigned)?")
# In order: what a module needs comes in by itself, before it. All others are loaded from the unpacked package
# once the guest sees it.
MODULES = ["virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_console", "nvme"]
NETWORK_TIMEOUT_S = 30


class Unavailable(Exception):
    """The machine cannot be started here; the text says why and what can be done."""


class Kernel:
    """An unpacked kernel package. `version` is what `uname -r` says in the guest."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        (self.image,) = directory.glob("boot/vmlinuz-*")
        self.version = self.image.name.removeprefix("vmlinuz-")


def prepare(cache: pathlib.Path, download: bool = True) -> tuple[Kernel, pathlib.Path]:
    """The kernel, and the file of its initial root file system; both made when they are missing."""
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kernel = _cached(cache)
        if kernel is None:
            if not download:
                raise Unavailable(f"no kernel in {cache} and --offline was given: run test/vm/run without it")
            kernel = _download(cache)
        return kernel, _initial_root(cache, kernel)


def _cached(cache: pathlib.Path) -> Kernel | None:
    found = [Kernel(directory) for directory in cache.glob("kernel-*") if directory.suffix != ".part"]
    return max(found, key=lambda kernel: _numbers(kernel.version), default=None)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"[0-9]+", text)]


# The package


def _sources_of_the_machine() -> list[dict[str, str]]:
    """The entries of apt for packages of a release, in the form of deb822, keys in small letters."""
    entries = []
    directory = pathlib.Path("/etc/apt")
    for path in [directory / "sources.list", *sorted((directory / "sources.list.d").glob("*"))]:
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".sources":
            text = re.sub(r"(?m)^#.*\n?", "", text)
            for paragraph in re.split(r"\n\s*\n", text):
                fields = re.findall(r"(?m)^([A-Za-z-]+):[ \t]*(.*(?:\n[ \t].*)*)", paragraph)
                entries.append({name.lower(): value for name, value in fields})
        elif path.suffix == ".list":
            for match in re.finditer(r"(?m)^deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+(.*)$", text):
                options, uri, suite, components = match.groups()
                entry = {"types": "deb", "uris": uri, "suites": suite, "components": components}
                for option in (options or "").split():
                    name, _, value = option.partition("=")
                    entry[name.lower()] = value.replace(",", " ")
                entries.append(entry)
    return entries


def _backports_source() -> str:
    """A source of the backports at the same place from which this machine gets its release."""
    for entry in _sources_of_the_machine():
        release = RELEASE in entry.get("suites", "").split()
        components = entry.get("components", "").split()
        enabled = entry.get("enabled", "yes").strip().lower() not in ("no", "false", "0")
        if not (release and enabled and "main" in components and "deb" in entry.get("types", "").split()):
            continue
        lines = ["Types: deb", f"URIs: {entry['uris']}", f"Suites: {SUITE}", "Components: main"]
        if "signed-by" in entry:
            lines.append(f"Signed-By: {entry['signed-by']}")
        return "\n".join([*lines, "Architectures: amd64", ""])
    raise Unavailable(
        f"apt has no source of Debian's {RELEASE} on this machine, so the kernel cannot be had: "
        f"unpack a package linux-image-{VERSION}*-amd64 of {SUITE} into .cache/vm/kernel-{VERSION} by hand"
    )


def _apt(state: pathlib.Path, *words: str, directory: pathlib.Path | None = None) -> str:
    options = {
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "Dir::Etc::SourceList": state / "backports.sources",
        "Dir::Etc::SourceParts": "-",
        "Acquire::Languages": "none",
        "Acquire::Retries": 1,
        "Acquire::http::Timeout": NETWORK_TIMEOUT_S,
        "Acquire::https::Timeout": NETWORK_TIMEOUT_S,
        "APT::Architecture": "amd64",
    }
    if os.getuid() == 0:
        options["APT::Sandbox::User"] = "root"  # the user _apt need not be allowed to see this directory
    flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    result = subprocess.run(
        [words[0], *flags, *words[1:]], capture_output=True, text=True, check=False, cwd=directory
    )
    if result.returncode != 0:
        error = " ".join(result.stderr.split())[-300:]
        raise Unavailable(f"the kernel could not be downloaded: {' '.join(words)} failed: {error}")
    return result.stdout


def _download(cache: pathlib.Path) -> Kernel:
    for tool in ("apt-get", "apt-cache", "dpkg-deb", "depmod"):
        if shutil.which(tool) is None:
            raise Unavailable(f"{tool} is missing, which gets the kernel: this needs the tools of Debian")
    source = _backports_source()
    state = cache / "apt"
    shutil.rmtree(state, ignore_errors=True)
    for name in ("lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True)
    (state / "status").touch()
    (state / "backports.sources").write_text(source, encoding="utf-8")
    _apt(state, "apt-get", "update", "-qq")
    names = _apt(state, "apt-cache", "pkgnames", f"linux-image-{VERSION}").split()
    names = [name for name in names if PACKAGE.fullmatch(name)]
    if not names:
        raise Unavailable(f"{SUITE} has no package linux-image-{VERSION}*-amd64 any more")
    # Of one version the unsigned one: it is the one that its modules come from.
    name = max(names, key=lambda each: (_numbers(each), each.endswith("-unsigned")))
    _apt(state, "apt-get", "download", "-qq", name, directory=state)
    (archive,) = state.glob("linux-image-*.deb")
    part = cache / f"kernel-{name.removeprefix('linux-image-')}.part"
    shutil.rmtree(part, ignore_errors=True)
    _must("unpacking the kernel", "dpkg-deb", "-x", str(archive), str(part))
    version = Kernel(part).version
    _must("listing the kernel's modules", "depmod", "-b", str(part), version)
    whole = part.with_suffix("")
    part.rename(whole)
    shutil.rmtree(state)
    return Kernel(whole)


def _must(what: str, *words: str) -> None:
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise Unavailable(f"{what} failed: {' '.join(result.stderr.split())[-300:]}")


# The initial root file system: busybox, a few modules, and the script that goes on in the host's root


def _initial_root(cache: pathlib.Path, kernel: Kernel) -> pathlib.Path:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise Unavailable("busybox is missing: run scripts/install-dependencies --vm")
    content = pathlib.Path(busybox).read_bytes()
    if b"statically linked" not in _kind_of(content):
        raise Unavailable(f"{busybox} is not statically linked: run scripts/install-dependencies --vm")
    init = (pathlib.Path(__file__).resolve().parent / "init.sh").read_bytes()
    modules = _in_order(kernel)
    identity = hashlib.sha256(content + init + "\n".join(modules).encode()).hexdigest()[:16]
    path = cache / f"initramfs-{kernel.version}-{identity}.cpio"
    if path.exists():
        return path
    for old in cache.glob(f"initramfs-{kernel.version}-*"):
        old.unlink()
    archive = _Archive()
    for name in ("bin", "dev", "lower", "modules", "new", "proc", "sys", "upper"):
        archive.add(name, stat.S_IFDIR | 0o755)
    archive.add("bin/busybox", stat.S_IFREG | 0o755, content)
    archive.add("init", stat.S_IFREG | 0o755, init)
    for number, module in enumerate(modules):
        data = (kernel.directory / "lib/modules" / kernel.version / module).read_bytes()
        if module.endswith(".xz"):
            data = lzma.decompress(data)
        name = pathlib.Path(module).name.split(".")[0]
        archive.add(f"modules/{number:02}-{name}.ko", stat.S_IFREG | 0o644, data)
    part = path.with_suffix(".part")
    part.write_bytes(archive.finish())
    part.rename(path)
    return path


def _kind_of(program: bytes) -> bytes:
    """As much of what `file` says as matters here: a program with an interpreter segment is not static."""
    header_offset = int.from_bytes(program[32:40], "little")
    size = int.from_bytes(program[54:56], "little")
    count = int.from_bytes(program[56:58], "little")
    kinds = [
        int.from_bytes(program[header_offset + size * number :][:4], "little") for number in range(count)
    ]
    return b"dynamically linked" if 3 in kinds else b"statically linked"


def _in_order(kernel: Kernel) -> list[str]:
    """Paths of the modules below the directory of the kernel's modules, each after those it needs."""
    directory = kernel.directory / "lib/modules" / kernel.version
    needs, paths = {}, {}
    for line in (directory / "modules.dep").read_text(encoding="ascii").splitlines():
        path, _, others = line.partition(":")
        needs[path] = others.split()
        paths[pathlib.Path(path).name.split(".")[0].replace("-", "_")] = path
    built_in = {
        pathlib.Path(line).stem.replace("-", "_")
        for line in (directory / "modules.builtin").read_text(encoding="ascii").splitlines()
    }
    ordered: list[str] = []
    for name in MODULES:
        if name in built_in:
            continue
        if name not in paths:
            raise Unavailable(f"the kernel {kernel.version} has no module {name}")
        # modules.dep names all that a module needs, the last needed first.
        for path in [*reversed(needs[paths[name]]), paths[name]]:
            if path not in ordered:
                ordered.append(path)
    return ordered


class _Archive:
    """A cpio archive in the form that the kernel unpacks ("newc")."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._count = 0

    def add(self, name: str, mode: int, content: bytes = b"") -> None:
        self._count += 1
        encoded = name.encode() + b"\0"
        fields = [self._count, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0]
        self._bytes += b"070701" + b"".join(b"%08X" % value for value in fields) + encoded
        self._fill()
        self._bytes += content
        self._fill()

    def finish(self) -> bytes:
        self.add("TRAILER!!!", 0)
        return bytes(self._bytes)

    def _fill(self) -> None:
        self._bytes += bytes(-len(self._bytes) % 4)
