"""Serves a diffusion pipeline on a unix socket, as OpenAI's images API has it. It follows http.py, loading.py and drawing.py.

    launch.py --socket PATH --model FILE|DIR --name NAME [--variant cpu|cuda|metal|…] [--threads COUNT]

One picture is drawn at a time, in a thread of its own; who waits is answered in turn, and who leaves ends what is drawn
for it at its next step. The socket is made once the pipeline is read; a process that is asked to end has nothing to save.
"""

import argparse
import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

# Requests that wait for their turn: whoever asks holds most of them back.
MAX_WAITING = 64


class Server(Http):
    # A picture and its mask in base64, with room.
    body_bytes = 256 * 1024 * 1024
    error_event = "error"

    def __init__(self, options, painter):
        self.options, self.painter = options, painter
        self.turns, self.waiting = ThreadPoolExecutor(1), 0
        self.routes = {
            ("GET", "/health"): self.health,
            ("GET", "/v1/models"): self.models,
            ("POST", "/v1/images/generations"): self.generate,
            ("POST", "/v1/images/edits"): self.edit,
        }

    async def health(self, _body, _send):
        return {"status": "ok", "device": self.painter.device, "waiting": self.waiting}

    async def models(self, _body, _send):
        return {"object": "list", "data": [{"id": self.options.name, "object": "model", "owned_by": "diffusers"}]}

    async def generate(self, body, send):
        return await self.draw({**body, "images": None, "mask": None}, send, "image_generation")

    async def edit(self, body, send):
        if not body.get("images"):
            raise Refused(400, "`image` is missing", param="image")
        return await self.draw(body, send, "image_edit")

    async def draw(self, body, send, kind):
        if self.waiting >= MAX_WAITING:
            raise Refused(503, "too many pictures are waiting to be drawn", type="server_error")
        loop, told, order = asyncio.get_running_loop(), asyncio.Queue(), None
        self.waiting += 1

        def work():
            if not order.left.is_set():
                self.painter.draw(order, lambda *event: tell(order, event, told, loop))

        try:
            # Pictures that come are read in a thread, too.
            order = await asyncio.to_thread(Order, body)
            # Nothing of a stream has been sent yet.
            self.painter.check(order)
            drawing = loop.run_in_executor(self.turns, work)
            drawing.add_done_callback(lambda _: told.put_nowait(None))
            pictures = await self.pass_on(order, told, send, kind)
            await drawing
            return None if order.streams else {"created": int(time.time()), **common(order, pictures), "data": pictures}
        finally:
            self.waiting -= 1
            if order is not None:
                order.left.set()

    async def pass_on(self, order, told, send, kind):
        """Until all are drawn, or the drawing has failed."""
        pictures = []
        while (event := await told.get()) is not None:
            phase, index, data, size, more = event
            if not order.streams:
                pictures.append({"b64_json": data, "size": size, **more})
                continue
            name = f"{kind}.{'partial_image' if phase == 'partial' else 'completed'}"
            number = {"partial_image_index": index} if phase == "partial" else {**more, "usage": usage(1)}
            shape = {"size": size, "quality": "auto", "background": "opaque", "output_format": order.format}
            await send({"type": name, "b64_json": data, "created_at": int(time.time()), **shape, **number}, name)
        return pictures

    def refusal_of(self, problem):
        refused = super().refusal_of(problem)
        if not isinstance(problem, (torch.OutOfMemoryError, MemoryError)):
            return refused
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()
        return Refused(500, f"out of memory: {str(problem)[:SHOWN]}", type="server_error")


def tell(order, event, told, loop):
    """From the thread that draws: pictures are encoded there."""
    phase, index, picture, more = event
    size = f"{picture.width}x{picture.height}"
    loop.call_soon_threadsafe(told.put_nowait, (phase, index, order.encode(picture), size, more))


def common(order, pictures):
    size = pictures[0].get("size") if pictures else None
    return {"size": size, "output_format": order.format, "background": "opaque", "usage": usage(len(pictures))}


def usage(count):
    """Pictures have no tokens here; clients want the numbers."""
    details = {"text_tokens": 0, "image_tokens": 0}
    return {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, "input_tokens_details": details, "images": count}


async def main():
    parser = argparse.ArgumentParser(prog="serve.py", allow_abbrev=False)
    for name in ("--socket", "--model", "--name"):
        parser.add_argument(name, required=True)
    parser.add_argument("--variant", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads > 0:
        torch.set_num_threads(options.threads)
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    started = time.monotonic()
    painter = Painter(*load(options))
    print(f"serve: loaded in {time.monotonic() - started:.1f} s on {painter.device}", file=sys.stderr, flush=True)
    await Server(options, painter).serve(options.socket)


asyncio.run(main())
