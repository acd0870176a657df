"""Headless Chromium, driven over the DevTools protocol through a pair of pipes: no port, no web socket."""
import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--no-default-browser-check", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-extensions", "--disable-default-apps", "--mute-audio", "--hide-scrollbars",
    "--disable-features=Translate,OptimizationHints,MediaRouter", "--remote-debugging-pipe",
    # Whatever a page asks for beyond this machine fails at once, and is seen.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]


def find():
    """Path of the browser, or None."""
    for name in [os.environ.get("MEMKV_TEST_CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"]:
        path = shutil.which(name) if name else None
        if path:
            return path
    return None


class Failed(Exception):
    """The browser refused, or did not answer in time."""


class Browser:
    """One browser process with a profile of its own, ended by close()."""

    def __init__(self, path):
        self.profile = tempfile.mkdtemp(prefix="memkv-console-")
        to_child, self.to_browser = os.pipe()
        self.from_browser, from_child = os.pipe()

        def place():  # the protocol is spoken on descriptors 3 and 4
            # Both are moved out of the way first: either may already be 3 or 4.
            read_end, write_end = os.dup(to_child), os.dup(from_child)
            high_read, high_write = os.dup(read_end), os.dup(write_end)
            os.dup2(high_read, 3)
            os.dup2(high_write, 4)

        self.log = open(os.path.join(self.profile, "log"), "wb")
        self.process = subprocess.Popen(
            [path, *FLAGS, f"--user-data-dir={self.profile}", "about:blank"], preexec_fn=place,
            close_fds=False, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            start_new_session=True)
        os.close(to_child)
        os.close(from_child)
        self.number = 0
        self.buffer = b""
        self.events = []

    def close(self):
        for end in (self.to_browser, self.from_browser):
            os.close(end)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.profile, ignore_errors=True)

    def _receive(self, deadline):
        while b"\0" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.from_browser], [], [], left)[0]:
                raise Failed("the browser did not answer in time")
            read = os.read(self.from_browser, 1 << 20)
            if not read:
                raise Failed("the browser ended")
            self.buffer += read
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method, parameters=None, session=None, seconds=30):
        self.number += 1
        request = {"id": self.number, "method": method, "params": parameters or {}}
        if session:
            request["sessionId"] = session
        os.write(self.to_browser, json.dumps(request).encode() + b"\0")
        deadline = time.monotonic() + seconds
        while True:
            message = self._receive(deadline)
            if message.get("id") != self.number:
                self.events.append(message)
                continue
            if "error" in message:
                raise Failed(f"{method}: {message['error']['message']}")
            return message["result"]

    def page(self, **how):
        return Page(self, **how)


class Page:
    """One tab in a context of its own: nothing is shared with other pages, storage included."""

    def __init__(self, browser, width=1440, height=900, scheme="light", script=""):
        self.browser = browser
        self.context = browser.call("Target.createBrowserContext")["browserContextId"]
        self.target = browser.call("Target.createTarget", {
            "url": "about:blank", "browserContextId": self.context})["targetId"]
        self.session = browser.call("Target.attachToTarget", {
            "targetId": self.target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.look(width, height, scheme)
        if script:
            self.call("Page.addScriptToEvaluateOnNewDocument", {"source": script})

    def call(self, method, parameters=None, seconds=30):
        return self.browser.call(method, parameters, self.session, seconds)

    def look(self, width, height, scheme):
        self.call("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
        self.call("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": scheme}]})

    def open(self, url):
        self.call("Page.navigate", {"url": url})

    def forget(self):
        """Leaves the page that is shown, and drops what was noted of it."""
        self.open("about:blank")
        self.wait("location.href === 'about:blank' && document.readyState === 'complete'")
        self.browser.events = [event for event in self.browser.events
                               if event.get("sessionId") != self.session]

    def run(self, expression, seconds=30):
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.call("Runtime.evaluate", {
            "expression": expression, "awaitPromise": True, "returnByValue": True}, seconds)
        if "exceptionDetails" in answer:
            raise Failed(f"{expression[:80]}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, expression, seconds=10):
        """Until the expression is true."""
        deadline = time.monotonic() + seconds
        while not self.run(expression):
            if time.monotonic() > deadline:
                raise Failed(f"did not become true within {seconds} s: {expression}")
            time.sleep(0.02)

    def screenshot(self, path, whole=False):
        options = {"format": "png"}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
            options["captureBeyondViewport"] = True
        with open(path, "wb") as out:
            out.write(base64.b64decode(self.call("Page.captureScreenshot", options)["data"]))

    def _mine(self, method):
        return [event["params"] for event in self.browser.events
                if event.get("sessionId") == self.session and event.get("method") == method]

    def requests(self):
        """URLs of everything the page asked for."""
        return [event["request"]["url"] for event in self._mine("Network.requestWillBeSent")]

    def complaints(self, network=False):
        """What a reader would see in red: exceptions, console errors, violations of the policy."""
        found = [
            "exception: " + event["exceptionDetails"].get("exception", {}).get("description", "unknown")
            for event in self._mine("Runtime.exceptionThrown")]
        found += [f"console: {str(event['args'])[:400]}" for event in self._mine("Runtime.consoleAPICalled")
                  if event["type"] in ("error", "warning", "assert")]
        found += [f"{event['entry']['source']}: {event['entry']['text']}"
                  for event in self._mine("Log.entryAdded")
                  if event["entry"]["level"] in ("error", "warning")
                  and (network or event["entry"]["source"] != "network")]
        return sorted(set(found))

    def close(self):
        self.browser.call("Target.disposeBrowserContext", {"browserContextId": self.context})
