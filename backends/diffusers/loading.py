"""Reads diffusion pipelines: directories of diffusers' layout, and DDUF. The first part of the server; see serve.py.

A DDUF is a ZIP archive of such a directory without compression (https://huggingface.co/docs/hub/dduf). Its weights are
mapped where they lie, its small files are copied beside the socket. Nothing of a model is code: weights are safetensors,
classes are those of diffusers and transformers.
"""

import contextlib
import json
import mmap
import os
import struct
import sys
import warnings
import zipfile
from pathlib import Path

# What the libraries print of themselves is no line of a log.
warnings.filterwarnings("ignore")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

import accelerate  # noqa: E402
import diffusers  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

INDEX = "model_index.json"
# What a DDUF may hold.
SMALL = (".json", ".txt", ".model")
WEIGHTS = ".safetensors"
# A tokenizer with all its merges has 35 MB, a list of shards less. Bytes.
MAX_SMALL = 128 * 2**20
MAX_SMALL_TOTAL = 512 * 2**20
# A pipeline has some dozen files.
MAX_ENTRIES = 4096
# Of a file of weights: as other readers have it. Bytes.
MAX_HEADER = 100_000_000
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def broken(reason):
    sys.exit(f"the model cannot be read: {reason}")


class Archive:
    """A DDUF: its files by name, as offset and length."""

    def __init__(self, path):
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                found = archive.infolist()
                if len(found) > MAX_ENTRIES:
                    broken(f"its archive has {len(found)} files, of at most {MAX_ENTRIES}")
                self.entries = {it.filename: self.place(archive, it) for it in found if not it.is_dir()}
        except (zipfile.BadZipFile, struct.error, NotImplementedError) as problem:
            broken(f"it is no whole archive ({problem})")
        if INDEX not in self.entries:
            broken(f"its archive has no `{INDEX}`")
        with open(path, "rb") as file:
            # A copy is made of what is written to, which is nothing: torch wants its memory writable.
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def place(self, archive, info):
        name = info.filename
        shown = name[:100]
        parts = name.split("/")
        if len(parts) > 2 or "\\" in name or any(it in ("", ".", "..") for it in parts):
            broken(f"its file `{shown}` lies where none may")
        if not name.endswith((*SMALL, WEIGHTS)):
            broken(f"its file `{shown}` is of a kind that a DDUF must not have")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            broken(f"its file `{shown}` is compressed or encrypted")
        archive.fp.seek(info.header_offset)
        head = archive.fp.read(30)
        start = info.header_offset + 30 + sum(struct.unpack("<HH", head[26:30]))
        if start + info.file_size > os.path.getsize(self.path) or info.file_size != info.compress_size:
            broken(f"its file `{shown}` ends beyond the archive")
        if not name.endswith(WEIGHTS) and info.file_size > MAX_SMALL:
            broken(f"its file `{shown}` has {info.file_size} bytes, of at most {MAX_SMALL}")
        return start, info.file_size

    def read(self, name):
        start, size = self.entries[name]
        return self.map[start : start + size]

    def unpack(self, directory):
        """All but the weights."""
        small = [name for name in self.entries if not name.endswith(WEIGHTS)]
        if sum(self.entries[name][1] for name in small) > MAX_SMALL_TOTAL:
            broken("it has too many files beside its weights")
        for name in small:
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.read(name))

    def files_of(self, component):
        """Of its weights: those of its list of shards, else those without a variant in their names."""
        prefix = f"{component}/"
        mine = sorted(it for it in self.entries if it.startswith(prefix) and it.endswith(WEIGHTS))
        lists = [it for it in self.entries if it.startswith(prefix) and it.endswith(f"{WEIGHTS}.index.json")]
        if len(lists) == 1:
            named = parse(self.read(lists[0]), lists[0]).get("weight_map")
            wanted = sorted({f"{prefix}{it}" for it in named.values()}) if isinstance(named, dict) else []
            missing = [it for it in wanted if it not in self.entries]
            if missing or not wanted:
                broken(f"`{lists[0][:100]}` names files that are not there")
            return wanted
        return [it for it in mine if ".fp16." not in it] or mine

    def tensors(self, component):
        found = {}
        for name in self.files_of(component):
            found.update(self.map_tensors(name))
        return found

    def map_tensors(self, name):
        """@see https://github.com/huggingface/safetensors#format"""
        start, size = self.entries[name]
        length = struct.unpack("<Q", self.map[start : start + 8])[0] if size >= 8 else MAX_HEADER
        if length > min(size - 8, MAX_HEADER):
            broken(f"`{name[:100]}` is no whole file of weights")
        header = parse(self.map[start + 8 : start + 8 + length], name)
        header.pop("__metadata__", None)
        return {key: self.tensor(it, (start + 8 + length, start + size), key) for key, it in header.items()}

    def tensor(self, told, extent, key):
        try:
            dtype, shape, (begin, end) = DTYPES[told["dtype"]], told["shape"], told["data_offsets"]
            count = 1
            for it in shape:
                count *= it
            size = torch.empty((), dtype=dtype).element_size()
            if begin < 0 or min(shape, default=0) < 0 or end - begin != count * size or extent[0] + end > extent[1]:
                raise ValueError
        except (KeyError, TypeError, ValueError):
            broken(f"its tensor `{key[:100]}` is of a kind that is not known, or not where it should be")
        if count == 0:
            return torch.empty(shape, dtype=dtype)
        offset = extent[0] + begin
        # Archives align nothing, and processors want to read whole words.
        if offset % size == 0:
            return torch.frombuffer(self.map, dtype=dtype, count=count, offset=offset).reshape(shape)
        return torch.frombuffer(bytearray(self.map[offset : offset + count * size]), dtype=dtype).reshape(shape)


def parse(data, name):
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else broken(f"`{name[:100]}` is no JSON object")


def component_class(library, name):
    """A class of the two libraries; a pipeline's own, such as a safety checker, is in a module of diffusers."""
    module = {"diffusers": diffusers, "transformers": transformers}.get(library)
    if module is None and isinstance(library, str) and library.isidentifier():
        module = getattr(diffusers.pipelines, library, None)
    found = getattr(module, name, None) if isinstance(name, str) and name.isidentifier() else None
    if isinstance(found, type):
        return found
    return broken(f"its part `{str(library)[:60]}.{str(name)[:60]}` is code of its own, which is never run")


def components_of(index):
    """Names and classes; what is null the pipeline does without."""
    listed = {key: it for key, it in index.items() if isinstance(it, list) and len(it) == 2 and not key.startswith("_")}
    return {key: component_class(*it) for key, it in listed.items() if it[0] is not None}


def stored_type(tensors):
    return next((it.dtype for it in tensors.values() if it.is_floating_point()), torch.float32)


def choose_device(variant):
    if torch.cuda.is_available() and variant != "cpu":
        return "cuda"
    return "mps" if torch.backends.mps.is_available() and variant != "cpu" else "cpu"


def choose_type(stored, device):
    """In half precision where it is stored so; processors have no arithmetic of IEEE's kind that is fast."""
    if device == "cpu":
        return torch.float32 if stored in (torch.float32, torch.float64) else torch.bfloat16
    return torch.bfloat16 if stored == torch.bfloat16 else torch.float16


def build(cls, directory, tensors, dtype):
    """A part of the pipeline of its config and its tensors, which it takes as they are."""
    if issubclass(cls, transformers.PreTrainedModel):
        config = transformers.AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
        own = cls.config_class.from_pretrained(directory) if cls.config_class is not None else config
        return cls.from_pretrained(None, config=own, state_dict=tensors, dtype=dtype).eval()
    config = cls.load_config(directory)
    if config.get("quantization_config") is not None:
        broken(f"its {directory.name} is quantized, which is not supported in a DDUF")
    with accelerate.init_empty_weights():
        model = cls.from_config(config)
    with contextlib.suppress(AttributeError):
        model._fix_state_dict_keys_on_load(tensors)
    keep = getattr(model, "_keep_in_fp32_modules", None) or ()
    for key, it in tensors.items():
        kept = any(part in key.split(".") for part in keep)
        if it.is_floating_point():
            tensors[key] = it.to(torch.float32 if kept else dtype)
    missing, _ = model.load_state_dict(tensors, strict=False, assign=True)
    if missing:
        broken(f"its {directory.name} lacks {len(missing)} tensors, such as `{missing[0][:100]}`")
    return model.eval()


def load_archive(path, scratch, device):
    archive = Archive(path)
    archive.unpack(scratch)
    parts, chosen = {}, None
    for name, cls in components_of(parse(archive.read(INDEX), INDEX)).items():
        if not issubclass(cls, (diffusers.ModelMixin, transformers.PreTrainedModel)):
            continue
        tensors = archive.tensors(name)
        if not tensors:
            broken(f"its part `{name[:60]}` has no weights as safetensors")
        dtype = choose_type(stored_type(tensors), device)
        chosen = chosen or dtype
        parts[name] = build(cls, scratch / name, tensors, dtype)
    return diffusers.DiffusionPipeline.from_pretrained(
        str(scratch), **parts, torch_dtype=unified(parts, chosen), local_files_only=True
    )


def unified(parts, chosen):
    """Parts talk to one another: all in the type of what draws."""
    drawing = next((parts[it] for it in ("transformer", "unet", "prior") if it in parts), None)
    dtype = drawing.dtype if drawing is not None else chosen
    for part in parts.values():
        part.to(dtype)
    return dtype


def load_directory(path, device):
    index = parse((path / INDEX).read_bytes()[:MAX_SMALL], INDEX)
    components_of(index)
    weights = sorted(path.glob(f"*/*{WEIGHTS}"))
    if not weights:
        broken("it has no weights as safetensors; others may be pickles, which are never opened")
    plain = [it for it in weights if ".fp16." not in it.name]
    drawing = [it for it in plain or weights if it.parent.name in ("transformer", "unet", "prior")]
    dtype = choose_type(file_type((drawing or weights)[0]), device)
    with contextlib.suppress(OSError, ValueError):
        return diffusers.DiffusionPipeline.from_pretrained(str(path), **from_files(dtype, None if plain else "fp16"))
    return diffusers.DiffusionPipeline.from_pretrained(str(path), **from_files(dtype, "fp16" if plain else None))


def from_files(dtype, variant):
    return {"torch_dtype": dtype, "variant": variant, "use_safetensors": True, "local_files_only": True}


def file_type(path):
    """Of the first tensor of a file."""
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = parse(file.read(min(length, MAX_HEADER)), path.name)
    kinds = (DTYPES.get(it.get("dtype")) for key, it in header.items() if key != "__metadata__" and isinstance(it, dict))
    return next((it for it in kinds if it is not None and it.is_floating_point), torch.float32)


def load(options):
    """The pipeline on its device, and what that is."""
    transformers.logging.set_verbosity_error()
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    transformers.logging.disable_progress_bar()
    device = choose_device(options.variant)
    path = Path(options.model)
    if path.is_dir():
        if not (path / INDEX).is_file():
            broken(f"its directory has no `{INDEX}`: it is no diffusion pipeline")
        pipe = load_directory(path, device)
    else:
        scratch = Path(options.socket).parent / "pipeline"
        scratch.mkdir()
        pipe = load_archive(path, scratch, device)
    pipe.set_progress_bar_config(disable=True)
    return settle(pipe, device), device


def settle(pipe, device):
    """Where it computes. Of a GPU that has no room for all of it, each part gets it in its turn."""
    vae = getattr(pipe, "vae", None)
    for act in ("enable_slicing", "enable_tiling"):
        if hasattr(vae, act):
            getattr(vae, act)()
    if device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        bytes_needed = sum(weight_bytes(it) for it in pipe.components.values())
        if bytes_needed > free * 0.8:
            print(f"serve: offloads, {bytes_needed} bytes of weights, {free} free", file=sys.stderr, flush=True)
            pipe.enable_model_cpu_offload()
            return pipe
    return pipe.to(device)


def weight_bytes(part):
    return sum(it.numel() * it.element_size() for it in part.parameters()) if isinstance(part, torch.nn.Module) else 0
