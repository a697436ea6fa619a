"""A server of one's own on a unix socket, as OpenAI's API has it: one request a connection. The first part of servers that
are put together of several files; what follows makes a subclass of Http."""

import asyncio
import contextlib
import json
import re
import sys

HEAD_BYTES = 64 * 1024
# For a request to arrive: it comes from the same machine.
ARRIVAL_S = 60
# Connections that are not accepted yet: as many as a burst of clients may open.
BACKLOG = 1024
# Of a failure that is told. Characters.
SHOWN = 300


class Refused(Exception):
    """What the client is told, in OpenAI's shape."""

    def __init__(self, status, message, **members):
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None, **members}}


def field(body, name, kinds, default=None, low=None, high=None):
    """A member of a request; null is none. A truth value is no number."""
    value = body.get(name)
    if value is None:
        return default
    fits = isinstance(value, kinds) and (kinds is bool or not isinstance(value, bool))
    if not fits or (low is not None and not low <= value) or (high is not None and not value <= high):
        raise Refused(400, f"`{name}` has a value that it cannot have", param=name)
    return value


class Http:
    """`routes`: by method and path what answers, called with the body, an object, and `send`, which begins a stream of
    events. It returns an object, or None after a stream."""

    # Whoever asks has limits of their own.
    body_bytes = 64 * 1024 * 1024
    # The name of the event that says that a stream has failed; None: it has none.
    error_event = None
    routes = {}

    async def serve(self, socket):
        server = await asyncio.start_unix_server(self.accept, socket, limit=HEAD_BYTES, backlog=BACKLOG)
        await server.serve_forever()

    def refusal_of(self, problem):
        """What is told of its own failure, which it says itself besides."""
        text = f"{type(problem).__name__}: {str(problem)[:SHOWN]}"
        print(f"serve: {text}", file=sys.stderr, flush=True)
        return Refused(500, f"the engine failed: {text}", type="server_error")

    async def accept(self, reader, writer):
        """The end of a connection is how a client says that it wants nothing any more."""
        try:
            method, path, body = await asyncio.wait_for(self.receive(reader), ARRIVAL_S)
            work = asyncio.ensure_future(self.reply(method, path, body, writer))
            gone = asyncio.ensure_future(leaving(reader))
            await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
        except Refused as refused:
            with contextlib.suppress(OSError):
                await give(writer, refused.status, refused.body)
        except (OSError, EOFError, asyncio.TimeoutError):
            pass
        finally:
            writer.close()

    async def reply(self, method, path, body, writer):
        begun = False

        async def send(event, name=None):
            nonlocal begun
            if not begun:
                begun = True
                head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
                writer.write(head.encode())
            data = event if isinstance(event, str) else json.dumps(event)
            # In chunks, so that a process that ends in between is seen to have done so.
            named = "" if name is None else f"event: {name}\n"
            chunk(writer, f"{named}data: {data}\n\n".encode())
            await writer.drain()

        try:
            act = self.routes.get((method, path))
            if act is None:
                known = any(path == it for _, it in self.routes)
                raise Refused(405 if known else 404, "there is nothing at this path" if not known else "not in this way")
            answer = await act(read_body(body) if method == "POST" else {}, send)
            if answer is not None:
                await give(writer, 200, answer)
            elif begun:
                chunk(writer, b"")
                await writer.drain()
        except OSError:
            pass
        except Exception as problem:
            refused = problem if isinstance(problem, Refused) else self.refusal_of(problem)
            with contextlib.suppress(OSError):
                await (send(refused.body, self.error_event) if begun else give(writer, refused.status, refused.body))

    async def receive(self, reader):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, target, _ = head.split("\r\n", 1)[0].split(" ", 2)
        except asyncio.LimitOverrunError:
            raise Refused(431, f"the head has more than {HEAD_BYTES} bytes") from None
        except ValueError:
            raise Refused(400, "this is no request") from None
        length = re.search(r"\r\ncontent-length: *(\d{1,15})\r\n", head, re.IGNORECASE)
        if re.search(r"\r\ntransfer-encoding:", head, re.IGNORECASE):
            raise Refused(411, "the body has no length")
        size = int(length[1]) if length else 0
        if size > self.body_bytes:
            raise Refused(413, f"the body has {size} bytes, of at most {self.body_bytes}")
        return method, target.split("?", 1)[0], await reader.readexactly(size)


def read_body(data):
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is no JSON") from None
    if not isinstance(body, dict):
        raise Refused(400, "the body is no JSON object")
    return body


async def leaving(reader):
    while await reader.read(HEAD_BYTES):
        pass


async def give(writer, status, body):
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Answer\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + data)
    await writer.drain()


def chunk(writer, data):
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
