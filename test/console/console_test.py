"""The console in headless Chromium, with servers that do not exist: console_test.py FILES.

FILES is the directory of the console's files. Exits with 77 where there is no Chromium. MEMKV_TEST_CHROMIUM
names another browser than the one in the path.
"""
import pathlib
import re
import sys
import unittest

import chromium
import documents
import fake_server

HERE = pathlib.Path(__file__).parent
FILES = ""
BROWSER = None
PAGE = None  # one tab for all: every case has a server, and so an origin, of its own

# Everything a reader sees or hears, labels of the charts included.
ALL_TEXT = """document.body.innerText + [...document.querySelectorAll('[aria-label]')]
  .map((each) => '\\n' + each.getAttribute('aria-label')).join('')"""


def minimal(uptime, **more):
    """A document with nothing but what the case is about."""
    return {"status": "healthy", "reasons": [], "phase": "serving", "started_at": 1000,
            "uptime_seconds": uptime, "storage": {"devices": []}, **more}


class Case(unittest.TestCase):
    """A fake server and a page on it whose clock stands still until pass_time()."""

    network_errors = False  # a status that is no 200 is an entry in the browser's log

    def setUp(self):
        self.server = fake_server.FakeServer(FILES)
        self.addCleanup(self.server.close)
        self.page = None

    def tearDown(self):
        if self.page is not None:
            self.assertEqual(self.page.complaints(network=not self.network_errors), [])
            for url in self.page.requests():
                self.assertTrue(url.startswith((self.server.url, "data:")), f"it asked for {url}")

    def open(self, answer, width=1440, height=900, scheme="light", seconds=8):
        self.server.answer = answer
        global PAGE
        if PAGE is None:
            PAGE = BROWSER.page(script=(HERE / "clock.js").read_text())
        PAGE.forget()
        PAGE.look(width, height, scheme)
        self.page = PAGE
        self.page.open(self.server.url)
        self.page.wait("document.readyState === 'complete' && typeof pass === 'function'")
        self.pass_time(seconds)

    def show(self, fake, status=200, **how):
        self.open(lambda: (status, fake.document()), **how)

    def pass_time(self, seconds, hang=False):
        self.page.run(f"pass({seconds * 1000}, {'true' if hang else 'false'})", 60)

    def text(self, selector="body"):
        return self.page.run(f"document.querySelector({selector!r}).innerText")

    def all_text(self):
        return self.page.run(ALL_TEXT)

    def level(self):
        return self.page.run("document.querySelector('#verdict').dataset.level")

    def asked(self):
        return self.server.paths.count("/v1/status")

    def check_figures(self):
        """No figure is negative, none is a number that is none, and no line leaves its chart."""
        text = self.all_text()
        self.assertNotRegex(text, r"(^|[\s(])[-\u2212]\d", "a negative figure")
        self.assertNotRegex(text, r"NaN|undefined|Infinity|\[object|null")
        paths = self.page.run("[...document.querySelectorAll('.plot .line, .plot .area')]"
                              ".map((each) => each.getAttribute('d') ?? '')")
        for path in paths:
            for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path):
                self.assertGreaterEqual(float(y), 0, path)
                self.assertLessEqual(float(y), 100, path)
                self.assertLessEqual(float(x), 600, path)

    def check_fits(self):
        width = self.page.run("innerWidth")
        self.assertLessEqual(self.page.run("document.documentElement.scrollWidth"), width)


class Servers(Case):
    def test_a_healthy_server_is_shown_in_full(self):
        self.show(documents.healthy())
        self.assertEqual(self.level(), "ok")
        self.assertEqual(self.text("#headline"), "Healthy")
        text = self.all_text()
        for expected in ["All 3 drives are online, every actor answers.", "10.0.7.21:9900", "up 2 d 3 h",
                         "2025-11-20T09-00-00Z", "3 of 3 online", "/dev/nvme2n1", "5.56 TiB of 6.95 TiB",
                         "SAMSUNG", "trim-batcher", "13 of 13 respond", "Enterprise", "Example Inference Ltd",
                         "128 of 16,384", "above 95 %, down to 90 %", "31.0 % now", "of 64.0 GiB", "live"]:
            self.assertIn(expected, text)
        network = self.text("[aria-labelledby=t-network]")
        self.assertIn("RDMA\nactive, 16 connections", network)
        for rail in range(2):
            self.assertRegex(network, rf"Rail {rail}: mlx5_{rail}\n8 sessions, "
                                      r"[\d.]+ [GM]iB fetched, [\d.]+ GiB placed\n")
        self.assertRegex(text, r"Reads: [\d.]+ GiB/s, [\d,]+ op/s")
        self.assertRegex(text, r"Get latency: p99 [\d.]+ ms, p50 [\d.]+ ms")
        self.assertRegex(text, r"Hit ratio: 9\d\.\d %")
        self.check_figures()
        self.check_fits()

    def test_failed_drives_are_first_and_say_why(self):
        self.show(documents.degraded())
        self.assertEqual(self.level(), "warn")
        self.assertEqual(self.text("#headline"), "Degraded")
        findings = self.text("#findings")
        for expected in ["drive 1 (/dev/nvme1n1) is offline", "drive 2 (/dev/nvme2n1) is blacklisted",
                         "The licence ends in 6 days.", "2 restarts of actors in the last",
                         "5 errors in the log in the last"]:
            self.assertIn(expected, findings)
        self.assertEqual(findings.count("nvme1n1) is offline"), 1)
        self.assertNotIn("Drive 1 is offline", findings, "what the server says is not said again")
        rows = self.page.run("[...document.querySelectorAll('#drive-rows tr')].map((row) => row.innerText)")
        self.assertIn("blacklisted", rows[0])
        self.assertIn("only memkv drive reset brings it back", rows[0])
        self.assertIn("Input/output error; it is tried again in 40 s · failed 1 time, last", rows[1])
        self.assertIn("its data are overwritten, 43 % done", rows[2])
        self.assertIn("online", rows[3])
        self.assertIn("not there", self.text("#actor-rows tr"))
        self.assertRegex(self.page.run("document.title"), "^Degraded · 10.0.7.21:9900")
        self.assertRegex(self.text("#announcement"), "^Degraded. It serves. 3 of 4 drives are not online")
        self.check_figures()

    def test_an_unhealthy_server_says_so_with_a_503_too(self):
        self.network_errors = True
        self.show(documents.unhealthy(), status=503)
        self.assertEqual(self.level(), "bad")
        self.assertEqual(self.text("#headline"), "Unhealthy")
        self.assertEqual(self.text("#findings").count("no drive is online"), 1)
        self.assertNotIn("Drive 0 is offline", self.text("#findings"), "the server said it")
        self.assertIn("No such device", self.text("#drive-rows"))
        self.assertIn("opening", self.text("#drive-rows"))
        self.check_figures()

    def test_a_stuck_actor_is_named_and_the_rest_is_shown(self):
        self.network_errors = True
        self.show(documents.stuck(), status=503)
        self.assertEqual(self.level(), "bad")
        self.assertEqual(self.text("#headline"), "Stuck: drive-1")
        self.assertEqual(self.text("#findings"), "", "the headline says it")
        self.assertIn("silent", self.text("#drive-rows tr"))
        self.assertIn("silent", self.text("#actor-rows tr"))
        self.assertRegex(self.all_text(), r"Reads: [\d.]+ GiB/s")
        before = self.asked()
        self.pass_time(20)
        self.assertLessEqual(self.asked() - before, 6, "such an answer is asked for less often")
        self.check_figures()

    def test_rdma_devices_that_are_away_are_named_in_every_width(self):
        self.show(documents.without_rdma())
        self.assertEqual(self.text("#headline"), "Degraded")
        self.assertEqual(self.text("#findings").count("mlx5_0 is not in use: There is no RDMA device"), 1)
        self.assertNotIn("dci-pool", self.text("#findings"))
        for width, scheme in ((1440, "light"), (1024, "dark"), (360, "dark"), (360, "light")):
            with self.subTest(width=width, scheme=scheme):
                self.page.look(width, 800, scheme)
                self.pass_time(2)
                network = self.text("[aria-labelledby=t-network]")
                self.assertIn("RDMA\nnot active", network)
                self.assertIn("Rail 0: mlx5_0\noffline: There is no RDMA device mlx5_0; this", network)
                self.assertIn("Rail 1: mlx5_1\nopening\n", network)
                self.check_fits()
                self.check_figures()

    def test_twenty_four_drives_fit_wide_and_narrow(self):
        self.show(documents.many(), height=800)
        for width in (1440, 1024, 360):
            with self.subTest(width=width):
                self.page.look(width, 800, "light")
                self.pass_time(2)
                self.assertEqual(self.page.run("document.querySelectorAll('#drive-rows tr').length"), 24)
                self.assertEqual(self.page.run("document.querySelectorAll('#strip li').length"), 24)
                self.assertIn("offline", self.text("#drive-rows tr"))
                self.assertIn("Drive 5 is slow. Reads take 12", self.text("#findings"))
                self.check_fits()
                self.check_figures()

    def test_an_idle_server_with_one_empty_drive(self):
        self.show(documents.idle(), width=360, height=800)
        self.assertEqual(self.text("#headline"), "Healthy")
        self.assertIn("Its drive is online, every actor answers. Nobody reads or writes now.",
                      self.text("#summary"))
        self.assertIn("RDMA\nnot configured\nRequests open", self.text("[aria-labelledby=t-network]"))
        self.assertIn("Reads: 0 B/s, 0 op/s", self.all_text())
        self.assertIn("Get latency: p99 –, p50 –", self.all_text())
        self.check_fits()
        self.check_figures()

    def test_hostile_names_stay_text(self):
        self.show(documents.hostile(), height=800)
        for width in (1440, 1024, 360):
            with self.subTest(width=width):
                self.page.look(width, 800, "light")
                self.pass_time(2)
                self.assertIsNone(self.page.run("window.broken"))
                self.assertEqual(self.page.run("document.querySelectorAll('img, iframe, object').length"), 0)
                self.assertEqual(self.page.run("document.querySelectorAll('script').length"), 1)
                self.assertGreaterEqual(self.all_text().count(documents.ATTACK), 5)
                addresses = self.page.run(
                    "[...document.querySelectorAll('a')].map((each) => each.protocol)")
                self.assertEqual(set(addresses), {"http:"})
                self.check_fits()

    def test_a_document_without_anything(self):
        self.open(lambda: (200, {"phase": "starting"}))
        self.assertEqual(self.text("#headline"), "Starting")
        self.server.answer = lambda: (200, {"phase": "serving", "requests": {}})
        self.pass_time(4)
        self.assertEqual(self.text("#headline"), "Health unknown")
        self.assertIn("This server has no drives.", self.text("#drives"))
        self.assertIn("Nothing was measured yet.", self.all_text())


class Figures(Case):
    def test_rates_are_differences_by_the_uptime_of_the_server(self):
        uptime = [100.0]

        def answer():
            uptime[0] += 2.0
            return 200, minimal(uptime[0], requests={
                "reads": int(uptime[0] * 600), "read_misses": int(uptime[0] * 200),
                "read_bytes": int(uptime[0] * 1.5 * 2 ** 30), "writes": 0, "write_bytes": 0})
        self.open(answer)
        self.assertIn("Reads: 1.50 GiB/s, 600 op/s", self.all_text())
        self.assertIn("Hit ratio: 75.0 %, 200 miss/s", self.all_text())

    def test_percentiles_are_of_what_came_in_between(self):
        step = [0]

        def answer():
            step[0] += 1
            # Before: a million fast ones, which must not count. Each step: 100 in (32, 64] µs.
            counts = [1_000_000] + [0] * 22
            counts[3] = 100 * step[0]
            return 200, minimal(100 + 2.0 * step[0], latency={
                "bounds_seconds": documents.BOUNDS,
                "series": [{"operation": "get", "stage": "total", "counts": counts, "sum_seconds": 1}]})
        self.open(answer)
        self.assertIn("Get latency: p99 63.7 µs, p50 48.0 µs", self.all_text())
        self.assertIn("50 /s", self.text("#latency-rows"))

    def test_what_is_beyond_the_last_bucket_is_more_than_its_bound(self):
        step = [0]

        def answer():
            step[0] += 1
            return 200, minimal(100 + 2.0 * step[0], latency={
                "bounds_seconds": documents.BOUNDS, "series": [
                    {"operation": "put", "stage": "total", "counts": [0] * 22 + [step[0]],
                     "sum_seconds": 1}]})
        self.open(answer)
        self.assertIn("Put latency: p99 > 16.8 s, p50 > 16.8 s", self.all_text())
        self.check_figures()

    def test_one_gathering_that_is_answered_twice_is_no_pause(self):
        asked = [0]

        def answer():
            asked[0] += 1
            uptime = 100 + 4 * (asked[0] // 2)
            return 200, minimal(uptime, requests={"reads": uptime * 10, "read_bytes": uptime * 2 ** 20})
        self.open(answer, seconds=12)
        self.assertIn("Reads: 1.00 MiB/s, 10 op/s", self.all_text())

    def test_a_restart_gives_no_negative_rates_and_is_marked(self):
        fake = documents.healthy()
        self.show(fake, seconds=30)
        fake.restart()
        self.pass_time(2)
        self.assertIn("Reads: –", self.all_text())
        self.check_figures()
        self.pass_time(8)
        self.assertRegex(self.all_text(), r"Reads: [\d.]+ GiB/s")
        self.assertIn("The server was started again", self.text("#findings"))
        self.assertNotEqual(self.page.run("document.querySelector('.restarts').getAttribute('d')"), "")
        self.check_figures()

    def test_a_counter_of_a_drive_that_falls_is_unknown_for_a_while(self):
        step = [0]

        def answer():
            step[0] += 1
            reads = step[0] * 1000 if step[0] < 5 else (step[0] - 5) * 1000
            return 200, minimal(100 + 2.0 * step[0], storage={"devices": [
                {"device_id": 0, "media": "m", "state": "online", "usable_bytes": 10, "used_bytes": 5,
                 "io": {"reads": reads, "read_bytes": reads * 2 ** 20}}]})
        self.open(answer, seconds=6)
        self.assertIn("500 MiB/s", self.text("#drive-rows"))
        self.pass_time(2)
        self.assertNotIn("MiB/s", self.text("#drive-rows"))
        self.check_figures()
        self.pass_time(10)
        self.assertIn("500 MiB/s", self.text("#drive-rows"))

    def test_history_is_ten_minutes(self):
        self.show(documents.healthy(), seconds=620)
        path = self.page.run("document.querySelector('#chart-reads .line').getAttribute('d')")
        places = [float(x) for x in re.findall(r"(-?[\d.]+) [\d.]+", path)]
        self.assertGreater(len(places), 290)
        self.assertLess(len(places), 315)
        self.assertGreater(min(places), -20)
        self.check_figures()


class Silence(Case):
    network_errors = True

    def test_a_server_that_is_gone_is_named_so_and_found_again(self):
        fake = documents.healthy()
        self.show(fake)
        self.server.answer = lambda: (200, None)
        self.pass_time(12)
        self.assertEqual(self.level(), "bad")
        self.assertRegex(self.text("#headline"), r"^No answer for 1[0-4] s$")
        self.assertIn("The connection failed", self.text("#summary"))
        self.assertIn("asking again", self.text("#link"))
        self.assertEqual(self.text("#announcement"), "The server does not answer.")
        self.assertRegex(self.page.run("document.title"), "^No answer · ")
        self.assertEqual(self.page.run("document.querySelector('#data').dataset.stale"), "yes")
        before = self.asked()
        self.pass_time(60)
        self.assertLessEqual(self.asked() - before, 7, "it asks less often")
        self.assertRegex(self.text("#headline"), r"^No answer for 1 min 1\d s$")
        fake.uptime += 72
        self.server.answer = lambda: (200, fake.document())
        self.pass_time(20)
        self.assertEqual(self.text("#headline"), "Healthy")
        self.assertEqual(self.page.run("document.querySelector('#data').dataset.stale"), "no")
        path = self.page.run("document.querySelector('#chart-reads .line').getAttribute('d')")
        self.assertEqual(path.count("M"), 2, "the charts have a hole")
        self.check_figures()

    def test_a_server_that_takes_the_question_and_says_nothing(self):
        import threading
        release = threading.Event()
        self.addCleanup(release.set)
        fake = documents.healthy()
        self.show(fake)

        def hang():
            release.wait(30)
            return 200, fake.document()
        self.server.answer = hang
        self.pass_time(12, hang=True)
        self.assertRegex(self.text("#headline"), r"^No answer for \d+ s$")
        self.assertIn("It was given 5 s to answer.", self.text("#summary"))
        release.set()

    def test_a_server_that_never_answered(self):
        self.open(lambda: (200, None))
        self.assertRegex(self.text("#headline"), r"^No answer for \d+ s$")
        self.assertIn("Nothing is known of it yet.", self.text("#summary"))

    def test_answers_that_are_no_status_are_told_of(self):
        answers = [(502, b"<html>Bad gateway</html>", "It answered 502, not with its status."),
                   (200, b"", "It answered 200, not with its status."),
                   (200, b"null", "not with its status"), (200, b"[1, 2]", "not with its status"),
                   (200, b"{\"storage", "not with its status"),
                   (401, {"error": "sign this request"}, "It answered 401: sign this request"),
                   (503, {"error": "the server is stopping", "silent": ["admin-gateway"]},
                    "It answered 503: the server is stopping")]
        fake = documents.healthy()
        self.show(fake)
        for status, body, expected in answers:
            self.server.answer = lambda: (status, body)
            self.pass_time(12)
            self.assertIn(expected, self.text("#summary"))
            self.assertRegex(self.text("#headline"), r"^No status for [\d mins]+$")
            self.assertEqual(self.level(), "bad")

    def test_nobody_is_asked_while_nobody_looks(self):
        self.show(documents.healthy())
        look = ("Object.defineProperty(document, 'hidden', {{value: {0}, configurable: true}});"
                "document.dispatchEvent(new Event('visibilitychange'))")
        self.page.run(look.format("true"))
        before = self.asked()
        self.pass_time(120)
        self.assertEqual(self.asked(), before)
        self.page.run(look.format("false"))
        self.pass_time(0)
        self.assertEqual(self.asked(), before + 1)
        self.pass_time(6)
        self.assertEqual(self.text("#headline"), "Healthy")
        self.check_figures()


class Readers(Case):
    def test_the_theme_follows_the_system_until_one_is_chosen(self):
        self.show(documents.healthy(), scheme="dark")
        back = "getComputedStyle(document.body).backgroundColor"
        dark = self.page.run(back)
        self.page.look(1440, 900, "light")
        light = self.page.run(back)
        self.assertNotEqual(dark, light)
        self.page.run("document.querySelector('#theme').click()")
        self.assertEqual(self.text("#theme"), "Theme: light")
        self.page.run("document.querySelector('#theme').click()")
        self.assertEqual(self.text("#theme"), "Theme: dark")
        self.assertEqual(self.page.run(back), dark)
        self.page.open(self.server.url)
        self.page.wait("document.readyState === 'complete' && typeof pass === 'function'")
        self.pass_time(2)
        self.assertEqual(self.text("#theme"), "Theme: dark")
        self.assertEqual(self.page.run(back), dark)

    def test_text_stands_out_from_its_ground_in_both_themes(self):
        self.show(documents.degraded())
        contrast = """(() => {
          const probe = document.createElement('span');
          document.body.append(probe);
          const light = (name) => {
            probe.style.color = `var(--${name})`;
            const parts = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3)
              .map((part) => part / 255)
              .map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
            return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
          };
          const pairs = [['text', 'card'], ['text', 'page'], ['soft', 'card'], ['soft', 'page'],
            ['ok', 'card'], ['warn', 'warn-back'], ['bad', 'bad-back'], ['bad', 'card'],
            ['warn', 'card'], ['first', 'card'],
            ['second', 'card'], ['text', 'bad-back'], ['text', 'warn-back']];
          const found = pairs.map(([a, b]) => [a, b, light(a), light(b)])
            .map(([a, b, x, y]) => [a, b, (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05)]);
          probe.remove();
          return found;
        })()"""
        for scheme in ("light", "dark"):
            self.page.look(1440, 900, scheme)
            for front, back, ratio in self.page.run(contrast):
                self.assertGreaterEqual(ratio, 4.5, f"{front} on {back}, {scheme}")

    def test_charts_are_read_with_the_keyboard(self):
        self.show(documents.healthy(), seconds=60)
        self.page.run("document.querySelector('#chart-reads').focus()")
        now = self.text("#chart-reads .value b")
        for _ in range(3):
            for kind in ("keyDown", "keyUp"):
                self.page.call("Input.dispatchKeyEvent", {
                    "type": kind, "key": "ArrowLeft", "code": "ArrowLeft"})
        self.assertEqual(self.text("#chart-reads .when"), "30 s ago")
        self.assertEqual(self.text("#chart-pool .when"), "30 s ago")
        self.assertNotEqual(self.text("#chart-reads .value b"), now)
        for kind in ("keyDown", "keyUp"):
            self.page.call("Input.dispatchKeyEvent", {"type": kind, "key": "Escape", "code": "Escape"})
        self.assertEqual(self.text("#chart-reads .when"), "")

    def test_a_screen_reader_finds_its_way(self):
        self.show(documents.many(), width=360, height=800)
        nodes = self.page.call("Accessibility.getFullAXTree")["nodes"]
        found = {}
        for node in nodes:
            if not node.get("ignored"):
                found.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
        for role in ("main", "banner", "contentinfo", "status", "table", "rowheader", "columnheader"):
            self.assertIn(role, found)
        for name in ("Drives", "Actors", "Latency of requests", "Memory", "Server"):
            self.assertTrue(any(each.startswith(name) for each in found["region"]), name)
        for role in ("button", "link", "table", "region", "figure"):
            for name in found.get(role, []):
                self.assertNotEqual(name, "", f"a {role} without a name")
        # The drives are a table to a screen reader though they look like blocks.
        self.assertGreaterEqual(len(found["row"]), 24)
        levels = self.page.run("[...document.querySelectorAll('h1,h2,h3')].map((each) => +each.tagName[1])")
        self.assertEqual(levels[0], 1)
        for before, after in zip(levels, levels[1:]):
            self.assertLessEqual(after, before + 1)

    def test_the_health_is_spoken_only_when_it_changes(self):
        fake = documents.healthy()
        self.show(fake)
        self.page.run("""window.spoken = 0; new MutationObserver(() => ++window.spoken)
          .observe(document.querySelector('#announcement'),
                   {childList: true, characterData: true, subtree: true})""")
        self.pass_time(30)
        self.assertEqual(self.page.run("spoken"), 0)
        fake.change = lambda document: document.update(status="degraded", reasons=["drive 0 is tired"])
        self.pass_time(4)
        self.assertEqual(self.page.run("spoken"), 1)


def main():
    global FILES, BROWSER
    FILES = sys.argv.pop(1)
    path = chromium.find()
    if path is None:
        print("console: no Chromium here; scripts/install-dependencies installs it")
        return 77
    BROWSER = chromium.Browser(path)
    try:
        return 0 if unittest.main(exit=False, verbosity=2).result.wasSuccessful() else 1
    finally:
        BROWSER.close()


if __name__ == "__main__":
    sys.exit(main())
