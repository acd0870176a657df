"""The console of a real server under load, in headless Chromium: console_server_test.py MEMKV.

Starts MEMKV with two drives in memory, puts and gets blocks all the while, looks at what the page shows,
kills the server, and starts it anew. Exits with 77 where there is no Chromium. With MEMKV_TEST_SCREENSHOTS a
picture is left in the directory that it names.
"""
import hashlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import chromium

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "python"))
from development_license import environment as licensed  # noqa: E402
from free_ports import free_port  # noqa: E402
import memkv_page_client as page_client  # noqa: E402

KEY = hashlib.sha256(b"the console under load").hexdigest()
CONFIGURATION = """
network:
  address: 127.0.0.1:{port}
memory:
  max_size: 64 MiB
storage:
  mode: memory
  drives:
    - {{ media: memory, max_size: 64 MiB }}
    - {{ media: memory, max_size: 64 MiB }}
"""


class Server:
    def __init__(self, program, directory, port):
        self.port = port
        path = pathlib.Path(directory) / "memkv.yaml"
        path.write_text(CONFIGURATION.format(port=port))
        self.log = open(pathlib.Path(directory) / "output", "ab")
        self.process = subprocess.Popen(
            [program, "start", "--config", str(path), "--log-file", "none"],
            env=licensed(program, keep=True, MEMKV_AUTH_KEY=KEY), stdin=subprocess.DEVNULL, stdout=self.log,
            stderr=self.log)
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port + 1), 1).close()
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.end()
                    raise RuntimeError("the server did not start: "
                                       + (pathlib.Path(directory) / "output").read_text()[-2000:]) from None
                time.sleep(0.05)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()


class Load(threading.Thread):
    """Puts and gets of blocks, and gets of some that are not there, until stop()."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port = port
        self.stopping = threading.Event()
        self.wrong = ""

    def run(self):
        try:
            with page_client.Client("127.0.0.1", self.port, bytes.fromhex(KEY)) as client:
                number = 0
                while not self.stopping.is_set():
                    value = bytes([number % 251]) * 2048
                    client.put(b"key-%d" % (number % 512), value)
                    if client.get(b"key-%d" % (number % 512)) is None:
                        self.wrong = "a block that was just put is not there"
                        return
                    if number % 4 == 0:
                        client.get(b"missing-%d" % number)
                    number += 1
                    self.stopping.wait(0.002)
        except (OSError, page_client.MemkvError) as error:
            if not self.stopping.is_set():
                self.wrong = f"the load failed: {error}"

    def stop(self):
        self.stopping.set()
        self.join(10)


def expect(condition, sentence):
    if not condition:
        raise AssertionError(sentence)


def text(page, selector):
    return page.run(f"document.querySelector({selector!r}).innerText")


def label(page, chart):
    return page.run(f"document.querySelector('#chart-{chart}').getAttribute('aria-label')")


def look(browser, program, directory):
    port = free_port()
    server = Server(program, directory, port)
    load = Load(port)
    load.start()
    page = browser.page(width=1440, height=900, scheme="dark")
    url = f"http://127.0.0.1:{port + 1}/"
    try:
        page.open(url)
        page.wait("document.querySelector('#headline')?.innerText === 'Healthy'", 20)
        page.wait("/op\\/s/.test(document.querySelector('#chart-reads').getAttribute('aria-label'))", 20)
        time.sleep(7)
        expect(load.wrong == "", load.wrong)
        summary = text(page, "#summary")
        expect("All 2 drives are online, every actor answers." in summary, summary)
        for chart in ("reads", "writes"):
            expect(re.search(r": (?!0 )[\d.,]+ [KMG]?i?B/s, (?!0 op)[\d.,]+ op/s", label(page, chart)),
                   f"there is load, and the chart shows none: {label(page, chart)}")
        expect(re.search(r"Hit ratio: [78]\d\.\d %", label(page, "hits")), label(page, "hits"))
        with urllib.request.urlopen(url + "v1/status", timeout=10) as answer:
            status = json.load(answer)
        measured = {each["operation"] for each in status["latency"]["series"] if sum(each["counts"]) > 0}
        for chart in measured & {"get", "put"}:
            expect(re.search(r"p99 [\d.]+ (µs|ms|s), p50 [\d.]+ (µs|ms|s)", label(page, chart)),
                   f"there are requests, and the chart shows no times: {label(page, chart)}")
        expect(page.run("document.querySelectorAll('#drive-rows tr').length") == 2, "there are two drives")
        actors = text(page, "#actor-rows")
        for name in ("server", "drive-0", "drive-1", "listener", "reactor-0"):
            expect(name in actors, f"{name} is not among the actors: {actors}")
        expect(text(page, "#version") != "", "the version is shown")
        expect(f"127.0.0.1:{port}" in text(page, "#address"), text(page, "#address"))
        expect(re.search(r"Connections\s+1 of", text(page, "#cards")), text(page, "#cards"))
        for width in (360, 1440):
            page.look(width, 900, "dark")
            expect(page.run("document.documentElement.scrollWidth") <= width,
                   f"it does not fit {width} pixels")
        pictures = os.environ.get("MEMKV_TEST_SCREENSHOTS")
        if pictures:
            page.screenshot(pathlib.Path(pictures) / "server.png", whole=True)

        expect(page.complaints(network=True) == [], str(page.complaints(network=True)))
        load.stop()
        server.end()
        page.wait("/^No answer for \\d+ s$/.test(document.querySelector('#headline').innerText)", 20)
        server = Server(program, directory, port)
        page.wait("document.querySelector('#headline').innerText === 'Healthy'", 30)
        page.wait("/was started again/.test(document.querySelector('#findings').innerText)", 10)
        shown = page.run("document.body.innerText")
        expect(not re.search(r"(^|\s)[-\u2212]\d|NaN|undefined", shown), "a figure is negative, or is none")
        expect(page.complaints() == [], str(page.complaints()))
        for asked in page.requests():
            expect(asked.startswith((url, "data:")), f"it asked for {asked}")
    finally:
        load.stop()
        server.end()
        page.close()


def main():
    path = chromium.find()
    if path is None:
        print("console: no Chromium here; scripts/install-dependencies installs it")
        return 77
    browser = chromium.Browser(path)
    try:
        with tempfile.TemporaryDirectory(prefix="memkv-console-") as directory:
            look(browser, os.path.abspath(sys.argv[1]), directory)
    except (AssertionError, chromium.Failed) as error:
        print(f"console: {error}")
        return 1
    finally:
        browser.close()
    print("console: the real server is shown as it is")
    return 0


if __name__ == "__main__":
    sys.exit(main())
