"""Pictures of the console with fabricated servers: screenshots.py FILES OUT [NAME...]."""
import pathlib
import sys

import chromium
import documents
import fake_server

HERE = pathlib.Path(__file__).parent
SHOTS = {"healthy": documents.healthy, "degraded": documents.degraded, "many": documents.many,
         "unhealthy": documents.unhealthy, "stuck": documents.stuck, "idle": documents.idle,
         "without_rdma": documents.without_rdma, "hostile": documents.hostile, "lost": documents.healthy,
         "restarted": documents.healthy}
SIZES = {"phone": (360, 800), "tablet": (1024, 768), "desk": (1440, 900)}


def main():
    files, out = sys.argv[1], pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    server = fake_server.FakeServer(files)
    browser = chromium.Browser(chromium.find())
    try:
        for name in sys.argv[3:] or SHOTS:
            fake = SHOTS[name]()
            server.answer = lambda: (503 if name == "stuck" else 200, fake.document())
            page = browser.page(script=(HERE / "clock.js").read_text())
            page.open(server.url)
            page.wait("document.readyState === 'complete' && typeof pass === 'function'")
            page.run("pass(430000)", 60)
            if name == "lost":
                server.answer = lambda: (200, None)
                page.run("pass(14000)")
            if name == "restarted":
                fake.restart()
            page.run("pass(170000)" if name != "lost" else "0", 60)
            for scheme in ("light", "dark"):
                for size, (width, height) in SIZES.items():
                    page.look(width, height, scheme)
                    page.screenshot(out / f"{name}-{size}-{scheme}.png")
                    page.screenshot(out / f"{name}-{size}-{scheme}-whole.png", whole=True)
            print(name, page.complaints())
            page.close()
    finally:
        browser.close()
        server.close()


if __name__ == "__main__":
    main()
