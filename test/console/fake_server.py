"""The console's files and a status document over HTTP, as the administration endpoint serves them."""
import http.server
import json
import pathlib
import threading

POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
          "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


class FakeServer:
    """Serves on a port of its own until close(). `answer` is called for each GET /v1/status and returns the
    HTTP status and the body: a value for JSON, bytes as they are, or None to hang up without an answer."""

    def __init__(self, files):
        self.answer = lambda: (200, {})
        self.paths = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # header and body together
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def do_GET(self):
                outer.paths.append(self.path)
                if self.path == "/v1/status":
                    status, body = outer.answer()
                    if body is None:
                        self.close_connection = True
                        return
                    kind = "application/json"
                    if not isinstance(body, bytes):
                        body = json.dumps(body).encode()
                else:
                    name = "index.html" if self.path == "/" else self.path[1:]
                    path = pathlib.Path(files) / name
                    if "/" in name or not path.is_file():
                        status, kind, body = 404, "application/json", b'{"error": "there is no such path"}'
                    else:
                        status, kind, body = 200, TYPES[path.suffix], path.read_bytes()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Content-Security-Policy", POLICY)
                self.send_header("X-Content-Type-Options", "nosniff")
                self.end_headers()
                try:
                    self.wfile.write(body)
                    self.wfile.flush()
                except OSError:  # the browser did not wait for it
                    self.close_connection = True

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
