"""Stands for an engine that is a Python program: `python-engine.py PORT [BEHAVIOUR…]`.

It says `port N`, `pid N`, `in DIRECTORY` and what happens to it, a line each, on stdout. Answers:

    GET /health           200, or 503
    POST /v1/completions  the first request
    POST /well, /go       becomes well; lets go what waits
    POST /echo            the body
    GET /pieces           `one`, and, after /go, `two`
    GET /endless          pieces until the client has gone: it says `left` then
    GET /big              20 MiB

Behaviours: unwell (until /well), slow-first (the first request waits for /go), sick-first (it is not well any more when
that comes), refuses-first (500), drops-first (no answer), dies-first, exits (code 3 at once), killed (by SIGKILL at
once), stubborn (ignores SIGTERM), graceful (SIGTERM is a /go, and ends it with 0 when all is answered), mute (leaves the first
question for its health without an answer).
"""

import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, BEHAVIOURS = int(sys.argv[1]), set(sys.argv[2:])
well, go, was_asked = threading.Event(), threading.Event(), threading.Event()


def say(text):
    # Unlike `print` it may be interrupted by a signal whose handler says something.
    os.write(1, f"{text}\n".encode())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, data=b"ok", status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def begin(self):
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()

    def do_GET(self):
        if self.path == "/health":
            if "mute" in BEHAVIOURS and not was_asked.is_set():
                was_asked.set()
                say("mute")
                time.sleep(60)
            return self.answer(status=200 if well.is_set() else 503)
        if self.path == "/big":
            return self.answer(b"x" * (20 * 1024 * 1024))
        self.begin()
        self.wfile.write(b"one")
        if self.path == "/pieces":
            go.wait()
            self.wfile.write(b"two")
            return None
        try:
            while True:
                self.wfile.write(b"more")
                time.sleep(0.005)
        except OSError:
            say("left")

    def do_POST(self):
        data = self.body()
        if self.path == "/v1/completions":
            return self.first(data)
        if self.path == "/well":
            well.set()
        if self.path == "/go":
            go.set()
        return self.answer(data if self.path == "/echo" else b"ok")

    def first(self, data):
        say(f"first {data.decode()}")
        if "sick-first" in BEHAVIOURS:
            well.clear()
            time.sleep(60)
        if "dies-first" in BEHAVIOURS:
            print("KeyError: 'lm_head'", file=sys.stderr, flush=True)
            os._exit(7)
        if "drops-first" in BEHAVIOURS:
            self.close_connection = True
            return None
        if "slow-first" in BEHAVIOURS:
            go.wait()
        return self.answer(status=500 if "refuses-first" in BEHAVIOURS else 200)


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = "graceful" not in BEHAVIOURS


def end(*_):
    # One handler may interrupt another, which holds the lock of `go`.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say("asked to end")
    if "graceful" in BEHAVIOURS:
        go.set()
        threading.Thread(target=server.shutdown).start()


say(f"pid {os.getpid()}")
say(f"in {os.getcwd()}")
if "exits" in BEHAVIOURS:
    sys.exit(3)
if "killed" in BEHAVIOURS:
    os.kill(os.getpid(), signal.SIGKILL)
if BEHAVIOURS & {"stubborn", "graceful"}:
    signal.signal(signal.SIGTERM, end)
if "unwell" not in BEHAVIOURS:
    well.set()
server = Server(("127.0.0.1", PORT), Handler)
say(f"port {PORT}")
server.serve_forever(0.01)
server.server_close()
# The interpreter's own end forgets the handlers of signals.
os._exit(0)
