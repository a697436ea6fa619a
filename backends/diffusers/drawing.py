"""Makes pictures: judges requests, and runs a pipeline step by step. It follows loading.py in one file; see serve.py."""

import base64
import inspect
import io
import random
import re
import threading

from PIL import Image

# Each side, in pixels, of which pipelines want multiples of eight; and all of a picture.
MIN_SIDE, MAX_SIDE, SIDE_STEP = 64, 2048, 8
MAX_COUNT = 10
MAX_STEPS = 150
MAX_GUIDANCE = 20
MAX_SEED = 2**32 - 1
MAX_PROMPT = 32_000
MAX_PARTIALS = 3
# What is decoded of a picture that comes, at most. Pixels.
MAX_PIXELS = 64_000_000
FORMATS = ("png", "jpeg", "webp")
# How many of its usual steps a pipeline takes.
QUALITIES = {"low": 0.5, "medium": 1, "standard": 1, "auto": 1, "high": 1.5, "hd": 1.5}


class Left(Exception):
    """Nobody wants the picture any more."""


def choice(body, name, known, default):
    value = field(body, name, str, default)
    if value not in known:
        raise Refused(400, f"`{name}` is one of {', '.join(known)}", param=name)
    return value


def read_size(body):
    """Width and height; None is the pipeline's own."""
    text = field(body, "size", str, "auto")
    if text == "auto":
        return None
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    sides = [int(it) for it in found.groups()] if found else []
    if not all(MIN_SIDE <= it <= MAX_SIDE and it % SIDE_STEP == 0 for it in sides) or not sides:
        rule = f"`WIDTHxHEIGHT`, each a multiple of {SIDE_STEP} from {MIN_SIDE} to {MAX_SIDE}"
        raise Refused(400, f"`size` is {rule}", param="size")
    return tuple(sides)


def read_picture(text, name):
    if not isinstance(text, str):
        raise Refused(400, f"`{name}` must be a picture in base64", param=name)
    try:
        data = base64.b64decode(text.encode(), validate=True)
        picture = Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP"])
        if picture.width * picture.height > MAX_PIXELS:
            raise Refused(400, f"`{name}` has more than {MAX_PIXELS} pixels", param=name)
        picture.load()
        return picture
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError):
        raise Refused(400, f"`{name}` is no PNG, JPEG or WebP", param=name) from None


def to_multiple(side):
    return max(MIN_SIDE, min(MAX_SIDE, side // SIDE_STEP * SIDE_STEP))


def fitting(size):
    """The size of a picture that comes, within bounds, in its own proportions as far as they go."""
    scale = min(1, MAX_SIDE / max(size))
    return tuple(to_multiple(round(it * scale)) for it in size)


def mask_of(picture, mask):
    """White is drawn anew. What is transparent is to be, and of a mask without transparency what is white."""
    source = mask if mask is not None else picture
    if "A" in source.getbands() or "transparency" in source.info:
        alpha = source.convert("RGBA").getchannel("A")
        if mask is None and alpha.getextrema()[0] > 0:
            return None
        return alpha.point([255 - it for it in range(256)])
    return None if mask is None else mask.convert("L")


class Order:
    """One request: what is to be drawn, how often, and whether anybody still wants it."""

    def __init__(self, body):
        self.left = threading.Event()
        self.prompt = field(body, "prompt", str, "")
        if not self.prompt.strip() or len(self.prompt) > MAX_PROMPT:
            raise Refused(400, f"`prompt` is missing, empty or longer than {MAX_PROMPT} characters", param="prompt")
        # Half of a pair, which JSON may have, is no character.
        self.prompt = self.prompt.encode("utf-8", "replace").decode()
        self.negative = field(body, "negative_prompt", str, "")[:MAX_PROMPT].encode("utf-8", "replace").decode()
        self.count = field(body, "n", int, 1, 1, MAX_COUNT)
        self.size = read_size(body)
        self.steps = field(body, "num_inference_steps", int, None, 1, MAX_STEPS)
        self.effort = QUALITIES[choice(body, "quality", QUALITIES, "auto")]
        self.guidance = field(body, "guidance_scale", (int, float), None, 0, MAX_GUIDANCE)
        self.strength = field(body, "strength", (int, float), None, 0.01, 1)
        seed = field(body, "seed", int, None, 0, MAX_SEED)
        self.seed = random.SystemRandom().randrange(MAX_SEED + 1) if seed is None else seed
        self.format = choice(body, "output_format", FORMATS, "png")
        self.compression = field(body, "output_compression", int, None, 0, 100)
        if field(body, "background", str, "auto") == "transparent":
            raise Refused(400, "`background` cannot be transparent: this engine draws none", param="background")
        self.streams = field(body, "stream", bool, False)
        self.partials = field(body, "partial_images", int, 0, 0, MAX_PARTIALS) if self.streams else 0
        self.read_pictures(body)

    def read_pictures(self, body):
        given = field(body, "images", list, [])
        if len(given) > 1:
            raise Refused(400, "`image` is one picture: this engine does not take several", param="image")
        self.picture = read_picture(given[0], "image") if given else None
        mask = read_picture(body["mask"], "mask") if body.get("mask") is not None else None
        self.mask = None
        if self.picture is None:
            return
        self.size = self.size or fitting(self.picture.size)
        drawn = mask_of(self.picture, mask)
        self.mask = drawn and drawn.resize(self.size)
        self.picture = self.picture.convert("RGB").resize(self.size, Image.Resampling.LANCZOS)

    def encode(self, picture):
        data = io.BytesIO()
        options = {} if self.format == "png" or self.compression is None else {"quality": self.compression}
        picture.convert("RGB").save(data, self.format.upper(), **options)
        return base64.b64encode(data.getvalue()).decode()


class Painter:
    """One pipeline, and those that are made of its parts."""

    def __init__(self, pipe, device):
        self.pipe, self.device = pipe, device
        self.made = {}

    def draws_from_nothing(self):
        found = inspect.signature(self.pipe.__call__).parameters.get("image")
        return found is None or found.default is not inspect.Parameter.empty

    def choose(self, order):
        """@raises Refused where there is no such pipeline of these parts"""
        name = type(self.pipe).__name__
        if order.picture is None:
            if not self.draws_from_nothing():
                raise Refused(400, f"this model, a {name}, only changes pictures: use /v1/images/edits", param="model")
            return self.pipe
        kind = "mask" if order.mask is not None else "picture"
        own = inspect.signature(self.pipe.__call__).parameters
        if "image" in own and ("mask_image" in own) == (kind == "mask"):
            return self.pipe
        if kind not in self.made:
            auto = diffusers.AutoPipelineForInpainting if kind == "mask" else diffusers.AutoPipelineForImage2Image
            try:
                self.made[kind] = auto.from_pipe(self.pipe)
                self.made[kind].set_progress_bar_config(disable=True)
            except (ValueError, TypeError):
                what = "draw a part of a picture anew" if kind == "mask" else "change pictures"
                raise Refused(400, f"this model, a {name}, cannot {what}", param="mask" if kind == "mask" else "image") from None
        return self.made[kind]

    def arguments(self, pipe, order):
        takes = inspect.signature(pipe.__call__).parameters
        wanted = {"prompt": order.prompt}
        if order.negative:
            wanted["negative_prompt"] = order.negative
        if order.size is not None:
            wanted["width"], wanted["height"] = order.size
        if order.picture is not None:
            wanted["image"] = order.picture
        if order.mask is not None:
            wanted["mask_image"] = order.mask
        for name, value in (("guidance_scale", order.guidance), ("strength", order.strength)):
            if value is not None:
                wanted[name] = value
        usual = takes["num_inference_steps"].default if "num_inference_steps" in takes else None
        if "num_inference_steps" in takes and (order.steps is not None or order.effort != 1) and isinstance(usual, int):
            wanted["num_inference_steps"] = order.steps or max(1, min(MAX_STEPS, round(usual * order.effort)))
        for name in wanted:
            # A changed picture has its own size, where its pipeline is told none.
            if name not in takes and not (name in ("width", "height") and order.picture is not None):
                raise Refused(400, f"this model, a {type(pipe).__name__}, has nothing for `{name}`", param=name)
        return {name: value for name, value in wanted.items() if name in takes}

    def check(self, order):
        """@raises Refused for what can be known before anything is drawn"""
        pipe = self.choose(order)
        return pipe, self.arguments(pipe, order)

    def draw(self, order, tell):
        """All pictures, one after the other. @raises Left"""
        pipe, arguments = self.check(order)
        for index in range(order.count):
            picture, flagged = self.draw_one(pipe, arguments, order, index, tell)
            tell("completed", index, picture, {"seed": (order.seed + index) % (MAX_SEED + 1), "flagged": flagged})

    def draw_one(self, pipe, arguments, order, index, tell):
        seed = (order.seed + index) % (MAX_SEED + 1)
        # On the processor: so the same seed is the same picture on any machine.
        arguments = {**arguments, "generator": torch.Generator("cpu").manual_seed(seed), "output_type": "pil"}
        watch = Watch(pipe, order, lambda number, picture: tell("partial", number, picture, {}))
        if "callback_on_step_end" in inspect.signature(pipe.__call__).parameters:
            arguments["callback_on_step_end"] = watch.step
        try:
            with torch.inference_mode(), watch:
                answer = pipe(**arguments)
        finally:
            pipe.maybe_free_model_hooks()
        flagged = getattr(answer, "nsfw_content_detected", None)
        return answer.images[0], bool(flagged and flagged[0])


class Watch:
    """Ends a drawing that nobody wants, before its next step; shows what there is of one between its steps."""

    def __init__(self, pipe, order, show):
        self.pipe, self.order, self.show = pipe, order, show
        self.shown = 0

    def __enter__(self):
        scheduler = getattr(self.pipe, "scheduler", None)
        self.own = getattr(scheduler, "step", None)
        if self.own is not None:

            def step(*args, **kwargs):
                self.go_on()
                return self.own(*args, **kwargs)

            scheduler.step = step
        self.go_on()

    def __exit__(self, *_):
        if self.own is not None:
            del self.pipe.scheduler.step

    def go_on(self):
        if self.order.left.is_set():
            self.pipe._interrupt = True
            raise Left

    def step(self, pipe, number, _time, values):
        self.go_on()
        total = getattr(pipe, "num_timesteps", None) or 1
        due = self.shown < self.order.partials and number + 1 < total
        if due and number + 1 >= total * (self.shown + 1) / (self.order.partials + 1):
            picture = preview(pipe, values.get("latents"))
            if picture is not None:
                self.show(self.shown, picture)
                self.shown += 1
        return values


def preview(pipe, latents):
    """Of pipelines whose latents are pictures themselves; None of the others."""
    if latents is None or latents.ndim != 4 or not hasattr(pipe, "image_processor") or not hasattr(pipe, "vae"):
        return None
    factor, shift = getattr(pipe.vae.config, "scaling_factor", 1), getattr(pipe.vae.config, "shift_factor", None) or 0
    decoded = pipe.vae.decode((latents / factor + shift).to(pipe.vae.dtype), return_dict=False)[0]
    return pipe.image_processor.postprocess(decoded, output_type="pil")[0]
