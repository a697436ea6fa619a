"""Models that write. The second part of the server; see serve.py."""

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from tokenizers.decoders import DecodeStream

# So many tokens of a prompt are read before others get their turn: until then not even a connection is accepted.
PREFILL = 64
MAX_STOPS = 32
# Of a generation's settings those that an export may come with, and of a decoder's those that are no plain values.
HABITS = ("temperature", "top_k", "top_p", "repetition_penalty")
DECODER = ("inputs", "outputs", "sliding_window")


class Template:
    """Hugging Face's dialect of Jinja, which cannot reach anything but what it is given."""

    def __init__(self, source, texts):
        from jinja2 import TemplateError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def give_up(message):
            raise TemplateError(message)

        jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        jinja.filters["tojson"] = lambda value, indent=None, **_: json.dumps(value, ensure_ascii=False, indent=indent)
        jinja.globals.update(raise_exception=give_up, strftime_now=time.strftime)
        names = ("bos_token", "eos_token", "unk_token", "pad_token")
        found = {name: texts.get(name) for name in names}
        self.tokens = {name: it.get("content") if isinstance(it, dict) else it or "" for name, it in found.items()}
        self.template = jinja.from_string(source)

    def render(self, messages, variables):
        try:
            return self.template.render(messages=messages, add_generation_prompt=True, **{**variables, **self.tokens})
        except Exception as problem:  # It is the model's own, and may fail in any way on what it is given.
            raise Refused(400, f"the model's chat template refuses this: {str(problem)[:SHOWN]}", param="messages") from None


class Writer(Model):
    def __init__(self, options):
        import onnxruntime_genai

        super().__init__(options)
        self.genai = onnxruntime_genai
        config = read_json(self.directory / "genai_config.json") or self.from_export()
        settings = self.confine(config, options)
        own = settings.get("context_length")
        self.set_limit(options, own)
        # Where a file says nothing it says null, which is no setting.
        search = config.get("search")
        self.search = {name: it for name, it in (search or {}).items() if isinstance(it, (bool, int, float))}
        self.vocabulary = min(self.vocabulary, settings.get("vocab_size", self.vocabulary))
        # What the library reads lies in the process's own directory: the model's may be read-only, and says too much.
        work = Path(tempfile.mkdtemp(dir=Path(options.socket).parent, prefix="genai-"))
        (work / "model").symlink_to(self.directory.resolve())
        (work / "genai_config.json").write_text(json.dumps({"model": settings, "search": self.search}), "utf-8")
        self.model = onnxruntime_genai.Model(str(work))
        ends = settings.get("eos_token_id")
        self.ends = set(ends if isinstance(ends, list) else [ends])
        self.start = next((it for it in (settings.get("bos_token_id"), *self.ends) if isinstance(it, int)), 0)
        self.places = asyncio.Semaphore(options.parallel)
        self.template = self.read_template(options)

    def from_export(self):
        """What genai wants to know of an export to Hugging Face, which knows it itself."""
        config, graph = self.config, find_graph(self.directory)
        heads = config.get("num_attention_heads") or 1
        habits = read_json(self.directory / "generation_config.json")
        ends = habits.get("eos_token_id", config.get("eos_token_id"))
        decoder = {
            "filename": str(graph.relative_to(self.directory)),
            "head_size": config.get("head_dim") or (config.get("hidden_size") or heads) // heads,
            "hidden_size": config.get("hidden_size"),
            "num_attention_heads": heads,
            "num_hidden_layers": config.get("num_hidden_layers"),
            "num_key_value_heads": config.get("num_key_value_heads") or heads,
        }
        model = {name: config.get(name) for name in ("bos_token_id", "pad_token_id", "vocab_size")}
        if None in decoder.values() or model["vocab_size"] is None or ends is None:
            sys.exit("its `config.json` describes no language model")
        model = {name: value for name, value in model.items() if value is not None}
        length = config.get("max_position_embeddings") or DEFAULT_CONTEXT
        model |= {"type": "llama", "decoder": decoder, "eos_token_id": ends, "context_length": length}
        return {"model": model, "search": {"max_length": length, **{it: habits[it] for it in HABITS if it in habits}}}

    def confine(self, config, options):
        """Without what names libraries to load, which would be code of the model's."""
        model = dict(config.get("model") or {})
        decoder = dict(model.get("decoder") or {})
        if not isinstance(decoder.get("filename"), str):
            sys.exit("its `genai_config.json` describes no language model")
        for name in ("vision", "speech", "audio", "embedding", "encoder", "pipeline"):
            if name in model or name in decoder:
                sys.exit(f"it has a part that is not served: `{name}`")
        decoder = {name: it for name, it in decoder.items() if name in DECODER or is_plain(name, it)}
        graph = Path(decoder["filename"])
        if graph.is_absolute() or ".." in graph.parts or not (self.directory / graph).is_file():
            sys.exit("its `genai_config.json` names a graph that is not there")
        decoder["filename"] = f"model/{graph}"
        decoder["session_options"] = {"intra_op_num_threads": options.threads, "provider_options": []}
        return {**{name: it for name, it in model.items() if is_plain(name, it)}, "decoder": decoder}

    def read_template(self, options):
        path = Path(options.chat_template) if options.chat_template else self.directory / "chat_template.jinja"
        source = path.read_text("utf-8") if path.is_file() else self.texts.get("chat_template")
        if isinstance(source, list):
            source = next((it.get("template") for it in source if it.get("name") == "default"), None)
        return Template(source, self.texts) if isinstance(source, str) else None

    def chat_prompt(self, body):
        messages = field(body, "messages", list) or []
        if not messages or not all(isinstance(it, dict) and isinstance(it.get("role"), str) for it in messages):
            raise Refused(400, "`messages` must be a list of messages, each with a role", param="messages")
        if self.template is None:
            raise Refused(400, "this model has no chat template: it completes texts", param="messages")
        if body.get("tools") and body.get("tool_choice") != "none":
            raise Refused(400, "this engine calls no tools", param="tools")
        plain = [{**it, "content": to_text(it.get("content"))} for it in messages]
        text = self.template.render(plain, field(body, "chat_template_kwargs", dict, {}))
        return self.encode(text, False)

    def prompt(self, body):
        given = body.get("prompt")
        if isinstance(given, list) and len(given) == 1 and not isinstance(given[0], int):
            given = given[0]
        return self.to_ids(given, "prompt", True)

    def begin(self, body, ids):
        """A generator that has read nothing yet, and how many tokens it may write."""
        room = self.limit - len(ids)
        if room < 1:
            raise too_long(len(ids), self.limit)
        wanted = field(body, "max_completion_tokens", int, field(body, "max_tokens", int, -1), -1)
        count = min(wanted, room) if wanted >= 0 else room
        usual = self.search.get("temperature", 1.0) if self.search.get("do_sample", True) else 0
        heat = field(body, "temperature", (int, float), usual, 0, 100)
        seed = field(body, "seed", int)
        kept = field(body, "top_k", int, int(self.search.get("top_k", 50)), -1, 2**31 - 1)
        settings = {"max_length": len(ids) + max(count, 1), "do_sample": heat > 1e-4 and kept != 1, "num_beams": 1}
        if settings["do_sample"]:
            settings["temperature"] = heat
            settings["top_p"] = field(body, "top_p", (int, float), self.search.get("top_p", 1.0), 0, 1)
            settings["top_k"] = min(kept, self.vocabulary) if kept > 0 else 0
            settings["random_seed"] = -1 if seed is None else seed % 2**31
        parameters = self.genai.GeneratorParams(self.model)
        parameters.set_search_options(**settings)
        return self.genai.Generator(self.model, parameters), count

    @staticmethod
    def step(generator):
        generator.generate_next_token()
        return int(generator.get_next_tokens()[0])

    async def write(self, body, ids, told):
        """Pieces of the answer as they come; `told` has the count of its tokens and why it ended."""
        stops = to_stops(body.get("stop"))
        async with self.places:
            generator, count = await self.turn(self.begin, body, ids)
            for start in range(0, len(ids), PREFILL):
                await self.turn(generator.append_tokens, ids[start : start + PREFILL])
            stream, held = DecodeStream(skip_special_tokens=True), ""
            while told["count"] < count and told["reason"] == "length":
                token = await self.turn(self.step, generator)
                told["count"] += 1
                if token in self.ends:
                    told["reason"] = "stop"
                    break
                held += stream.step(self.tokenizer, token) or ""
                cut = min((at for at in map(held.find, stops) if at >= 0), default=-1)
                if cut >= 0:
                    told["reason"], held = "stop", held[:cut]
                    break
                keep = max((n for it in stops for n in range(1, len(it)) if held.endswith(it[:n])), default=0)
                if len(held) > keep:
                    yield held[: len(held) - keep]
                    held = held[len(held) - keep :]
            if held:
                yield held


def is_plain(name, value):
    """Names nothing that would be loaded."""
    return "library" not in name and (value is None or isinstance(value, (bool, int, float, str, list)))


def to_text(content):
    """Of a message: a text, parts of text, or nothing."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = content if isinstance(content, list) else [None]
    if not all(isinstance(it, dict) and it.get("type") == "text" and isinstance(it.get("text"), str) for it in parts):
        raise Refused(400, "`messages` has what is no text: this model reads only text", param="messages")
    return "".join(it["text"] for it in parts)


def to_stops(value):
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(it, str) for it in stops):
        raise Refused(400, f"`stop` is a text, or at most {MAX_STOPS} of them", param="stop")
    return [it for it in stops if it]
