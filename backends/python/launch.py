"""Starts an engine that listens on a port, and serves it on a unix socket.

    launch.py --socket PATH --ready PATH [--warm-up PATH JSON] [--link NAME PATH [--template FILE] [--answers JSON] [--config JSON]]
              [--grace SECONDS] -- ARGS…

ARGS are for this Python; one that is `{port}` becomes a free port of 127.0.0.1. The socket is made once the engine
answers 200 on the path of --ready, and, with --warm-up, once it has answered that request: engines say that they are
well before they have read the model. Ends with the engine, in the same way; with 1 where it never gets ready.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import sys

CHUNK = 64 * 1024
POLL_S = 0.02
# While it reads its model an engine may leave a question unanswered; it is asked again then.
PROBE_S = 5
# Health is asked for so often while the first request is answered.
WATCH_S = 1
# A broken connection is seen a moment before the end of the engine that broke it.
DYING_S = 1
# For what an engine said last to reach those who read it.
FLUSH_S = 1
# Connections that are not accepted yet: as many as a burst of clients may open.
BACKLOG = 1024

# Files of a model that say how texts are made for it; templates with all their tools have some 100 KB. Characters.
TEMPLATE = "chat_template.jinja"
TOKENIZER = "tokenizer_config.json"
CONFIG = "config.json"
TEXT_LIMIT = 64 * 1024 * 1024


class NotReady(Exception):
    pass


def parse(argv):
    parser = argparse.ArgumentParser(prog="launch.py", allow_abbrev=False)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--ready", required=True)
    parser.add_argument("--warm-up", nargs=2)
    # A name beside the socket, and what it stands for.
    parser.add_argument("--link", nargs=2)
    # Of what the link stands for: the chat template to take instead, and what is to be known of answers; see `lay`.
    parser.add_argument("--template")
    parser.add_argument("--answers", type=json.loads, default=[])
    # Members of its `config.json` that are to be others.
    parser.add_argument("--config", type=json.loads, default={})
    # From SIGTERM to SIGKILL; whoever started this waits a little longer.
    parser.add_argument("--grace", type=float, default=5)
    end = argv.index("--") if "--" in argv else len(argv)
    args = argv[end + 1 :]
    if not args:
        parser.error("there is no engine to start")
    return parser.parse_args(argv[:end]), args


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def connect(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    # The system may give the port that nobody listens on to the caller, who would be connected to itself.
    if writer.get_extra_info("sockname") == writer.get_extra_info("peername"):
        writer.close()
        raise ConnectionRefusedError
    return reader, writer


async def ask(port, path, body=None):
    """The status of an answer; None if there is none."""
    try:
        reader, writer = await connect(port)
    except OSError:
        return None
    try:
        data = (body or "").encode()
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        writer.write(head.encode() + b"\r\n" + data)
        line = (await reader.readline()).split()
        # What follows is read: an engine would complain about a client that has gone.
        while await reader.read(CHUNK):
            pass
        return int(line[1])
    except (OSError, ValueError, IndexError):
        return None
    finally:
        writer.close()


async def probe(port, path):
    try:
        return await asyncio.wait_for(ask(port, path), PROBE_S)
    except asyncio.TimeoutError:
        return None


async def until_ready(port, options):
    while await probe(port, options.ready) != 200:
        await asyncio.sleep(POLL_S)
    if options.warm_up is None:
        return
    answer = asyncio.ensure_future(ask(port, *options.warm_up))
    while not (await asyncio.wait([answer], timeout=WATCH_S))[0]:
        if await probe(port, options.ready) not in (200, None):
            # It has lost what it works with; why stands above in its log.
            raise NotReady("the engine is not well any more while it answers its first request")
    if answer.result() is None:
        raise NotReady("the engine did not answer its first request")
    if answer.result() != 200:
        raise NotReady(f"the engine answered its first request with status {answer.result()}")


async def pump(reader, writer):
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass


async def relay(port, reader, writer):
    """Until both ends are closed, with all that was written to them."""
    try:
        far_reader, far_writer = await connect(port)
    except OSError:
        writer.close()
        return
    ways = [asyncio.ensure_future(pump(reader, far_writer)), asyncio.ensure_future(pump(far_reader, writer))]
    # A client that has gone ends its request; an engine that hangs up has answered.
    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    for end in (far_writer, writer):
        end.close()
    await asyncio.wait(ways)
    for end in (far_writer, writer):
        try:
            await end.wait_closed()
        except OSError:
            pass


async def serve(port, path, ended):
    """Until the engine has ended and its last words have been passed on."""
    connections = set()

    async def accept(reader, writer):
        task = asyncio.current_task()
        connections.add(task)
        task.add_done_callback(connections.discard)
        await relay(port, reader, writer)

    server = await asyncio.start_unix_server(accept, path, limit=CHUNK, backlog=BACKLOG)
    await asyncio.wait([ended])
    server.close()
    if connections:
        await asyncio.wait(connections, timeout=FLUSH_S)


def send(engine, number):
    """Not by the engine's own method, which reaps a process that has just ended, and how it ended is lost."""
    if engine.returncode is None:
        try:
            os.kill(engine.pid, number)
        except ProcessLookupError:
            pass


def end_as(code):
    """As the engine ended: by the same signal, or with the same code."""
    if code < 0:
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


def ask_to_end(engine, grace):
    """Politely, then by force."""
    send(engine, signal.SIGTERM)
    asyncio.get_running_loop().call_later(grace, send, engine, signal.SIGKILL)


def read(path):
    """A text, of which nobody needs more than the first part; empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(TEXT_LIMIT)
    except OSError:
        return ""


def read_object(path):
    try:
        value = json.loads(read(path) or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def template_of(options, tokenizer):
    """The chat template that holds, as a text."""
    text = read(options.template or os.path.join(options.link[1], TEMPLATE))
    return text or json.dumps(tokenizer.get("chat_template", ""), ensure_ascii=False)


def answers_of(options, tokenizer):
    """
    How answers are to be read: the first of `--answers` of whose words in `with` the template has all, and of those in
    `without` none. None where the model says so itself, or nothing fits.
    """
    if "response_template" in tokenizer:
        return None
    text = template_of(options, tokenizer)
    for it in options.answers:
        if all(word in text for word in it["with"]) and not any(word in text for word in it["without"]):
            return it["template"]
    return None


def lay(options):
    """The model under a short name: a link, or a directory of links where a file of it is to be another."""
    name, target = options.link
    tokenizer = read_object(os.path.join(target, TOKENIZER)) if options.answers else {}
    answers = answers_of(options, tokenizer) if options.answers else None
    written = {}
    if answers is not None:
        written[TOKENIZER] = {**tokenizer, "response_template": answers}
    if options.config:
        written[CONFIG] = {**read_object(os.path.join(target, CONFIG)), **options.config}
    if not written and options.template is None:
        os.symlink(target, name)
        return
    os.mkdir(name)
    for entry, content in written.items():
        with open(os.path.join(name, entry), "w", encoding="utf-8") as file:
            json.dump(content, file)
    others = {entry: os.path.join(target, entry) for entry in os.listdir(target) if entry not in written}
    if options.template is not None:
        others[TEMPLATE] = options.template
    for entry, path in others.items():
        os.symlink(path, os.path.join(name, entry))


def prepare(options):
    os.chdir(os.path.dirname(options.socket))
    if options.link is not None:
        lay(options)


async def main():
    options, args = parse(sys.argv[1:])
    try:
        prepare(options)
    except OSError as problem:
        sys.exit(f"launch: {problem}")
    port = free_port()
    command = [sys.executable, *(str(port) if arg == "{port}" else arg for arg in args)]
    engine = await asyncio.create_subprocess_exec(*command)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ask_to_end, engine, options.grace)
    ended = asyncio.ensure_future(engine.wait())
    ready = asyncio.ensure_future(until_ready(port, options))
    await asyncio.wait([ended, ready], return_when=asyncio.FIRST_COMPLETED)
    try:
        if not ended.done():
            await ready
            await serve(port, options.socket, ended)
    except (NotReady, OSError) as problem:
        await asyncio.wait([ended], timeout=DYING_S)
        if not ended.done():
            # Not in an exception's words: what the engine itself complained of counts for more.
            print(f"launch: {problem}", file=sys.stderr, flush=True)
            ask_to_end(engine, options.grace)
            await asyncio.wait([ended])
            os._exit(1)
    end_as(ended.result())


asyncio.run(main())
