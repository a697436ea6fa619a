"""Models of texts: what all have in common, and embeddings. It follows http.py in one file; see serve.py."""

import asyncio
import base64
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Both libraries report to their maker unless this is set before they are loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

# Of models that do not say how much they can read. Tokens.
DEFAULT_CONTEXT = 2048
# Texts that are embedded at once, and those of a request (OpenAI's own limit).
BATCH = 16
MAX_INPUTS = 2048
# Of all texts that are embedded at once, each as long as the longest: what attention takes grows with each one's square.
BATCH_TOKENS = 4096
# Order of preference, in the model's directory and in its `onnx`.
GRAPHS = ["model.onnx", "decoder_model_merged.onnx", "model_quantized.onnx", "model_int8.onnx", "model_q4.onnx"]


def too_long(count, limit):
    text = f"this model's maximum context length is {limit} tokens, but the request has {count} tokens"
    numbers = {"n_prompt_tokens": count, "n_ctx": limit}
    return Refused(400, text, type="exceed_context_size_error", code="context_length_exceeded", **numbers)


def read_json(path):
    """An object; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        sys.exit(f"its `{path.name}` is no JSON object")
    return value


def find_graph(directory):
    for name in GRAPHS:
        for path in (directory / name, directory / "onnx" / name):
            if path.is_file():
                return path
    found = sorted(directory.glob("*.onnx")) or sorted(directory.glob("onnx/*.onnx"))
    if len(found) != 1:
        sys.exit("the model has no `model.onnx`" if not found else "none of its graphs is `model.onnx`")
    return found[0]


class Model:
    """What both modes have: a tokenizer, a limit in tokens, and one thread that computes, in turns."""

    def __init__(self, options):
        self.directory = Path(options.model)
        self.config = read_json(self.directory / "config.json")
        self.texts = read_json(self.directory / "tokenizer_config.json")
        path = self.directory / "tokenizer.json"
        if not path.is_file():
            sys.exit("the model has no `tokenizer.json`")
        self.tokenizer = Tokenizer.from_file(str(path))
        # Whoever sends too much is told so, and gets no answer about a part of it.
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.vocabulary = self.tokenizer.get_vocab_size()
        self.turns = ThreadPoolExecutor(1)

    def set_limit(self, options, *own):
        known = [int(it) for it in (*own, options.context) if isinstance(it, (int, float)) and 0 < it < 2**31]
        self.limit = min(known, default=DEFAULT_CONTEXT)

    async def turn(self, act, *args):
        """Whoever asks first is first, so that each gets a step after the other."""
        return await asyncio.get_running_loop().run_in_executor(self.turns, act, *args)

    def encode(self, text, special):
        # Half of a pair, which JSON may have, is no character.
        return self.tokenizer.encode(text.encode("utf-8", "replace").decode(), add_special_tokens=special).ids

    def to_ids(self, value, name, special):
        if isinstance(value, str):
            return self.encode(value, special)
        if isinstance(value, list) and value and all(type(it) is int and 0 <= it < self.vocabulary for it in value):
            return value
        raise Refused(400, f"`{name}` must be text, or tokens of this model", param=name)


def in_batches(texts):
    """In their order. A text that is too long for a batch is one."""
    batch, width = [], 0
    for ids in texts:
        width = max(width, len(ids))
        if batch and (len(batch) == BATCH or width * (len(batch) + 1) > BATCH_TOKENS):
            yield batch
            batch, width = [], len(ids)
        batch.append(ids)
    if batch:
        yield batch


class Embedder(Model):
    def __init__(self, options):
        super().__init__(options)
        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = options.threads
        graph = str(find_graph(self.directory))
        self.session = onnxruntime.InferenceSession(graph, session, providers=["CPUExecutionProvider"])
        self.inputs = {it.name: it for it in self.session.get_inputs()}
        outputs = [it.name for it in self.session.get_outputs()]
        preferred = ("sentence_embedding", "last_hidden_state", "token_embeddings")
        self.output = next((it for it in preferred if it in outputs), outputs[0])
        self.pooling = read_json(self.directory / "1_Pooling" / "config.json")
        self.set_limit(options, self.config.get("max_position_embeddings"), self.texts.get("model_max_length"))

    def feed(self, batch):
        width = max(len(ids) for ids in batch)
        ids, mask = np.zeros((2, len(batch), width), np.int64)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        values["position_ids"] = np.broadcast_to(np.arange(width), ids.shape)
        for name, it in self.inputs.items():
            if name.startswith("past_key_values."):
                kind = np.float16 if "float16" in it.type else np.float32
                values[name] = np.zeros((len(batch), it.shape[1], 0, it.shape[3]), kind)
        kinds = {name: np.int32 for name, it in self.inputs.items() if it.type == "tensor(int32)"}
        return {name: values[name].astype(kinds.get(name, values[name].dtype)) for name in self.inputs if name in values}, mask

    def embed(self, batch):
        feed, mask = self.feed(batch)
        vectors = self.session.run([self.output], feed)[0].astype(np.float32)
        if vectors.ndim == 3:
            vectors = self.pool(vectors, mask)
        return vectors

    def pool(self, states, mask):
        if self.pooling.get("pooling_mode_cls_token"):
            return states[:, 0]
        if self.pooling.get("pooling_mode_lasttoken"):
            return states[np.arange(len(states)), mask.sum(1) - 1]
        weights = mask[:, :, None].astype(np.float32)
        if self.pooling.get("pooling_mode_max_tokens"):
            return np.where(weights > 0, states, -np.inf).max(1)
        return (states * weights).sum(1) / weights.sum(1)

    async def answer(self, body):
        given = body.get("input")
        if given is None or given == [] or given == "":
            raise Refused(400, "`input` is missing, or empty", param="input")
        several = isinstance(given, list) and not isinstance(given[0], int)
        texts = given if several else [given]
        if len(texts) > MAX_INPUTS:
            raise Refused(400, f"`input` has {len(texts)} texts, of at most {MAX_INPUTS}", param="input")
        size = field(body, "dimensions", int, low=1)
        form = field(body, "encoding_format", str, "float")
        if form not in ("float", "base64"):
            raise Refused(400, "`encoding_format` is `float` or `base64`", param="encoding_format")
        all_ids, count = [], 0
        for text in texts:
            ids = await self.turn(self.to_ids, text, "input", True)
            if len(ids) > self.limit:
                raise too_long(len(ids), self.limit)
            count += len(ids)
            # A text may have no tokens.
            all_ids.append(ids or [0])
        vectors = []
        for batch in in_batches(all_ids):
            vectors.extend(await self.turn(self.embed, batch))
        if size is not None and size > len(vectors[0]):
            raise Refused(400, f"`dimensions` is at most {len(vectors[0])}", param="dimensions")
        data = []
        for index, vector in enumerate(vectors):
            # JSON has no such numbers; half precision overflows to them.
            if not np.isfinite(vector).all():
                raise Refused(500, "the model made a vector that is no number", type="server_error")
            vector = vector[:size] / max(float(np.linalg.norm(vector[:size])), 1e-12)
            told = vector.tolist() if form == "float" else base64.b64encode(vector.astype("<f4").tobytes()).decode()
            data.append({"object": "embedding", "index": index, "embedding": told})
        return {"object": "list", "data": data, "usage": {"prompt_tokens": count, "total_tokens": count}}
