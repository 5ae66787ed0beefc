"""Writes one small, right file for each fuzz target to begin with.

Out of the golden model:   python fuzz/seeds.py fuzz/corpus
"""

import json
import pathlib
import struct
import sys

GOLDEN = pathlib.Path(__file__).parents[3] / "models/golden/qwen2-tiny/model.gguf"
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def read_golden():
    """The bytes of all metadata, their number, and the arrays by key."""
    data = GOLDEN.read_bytes()
    n_metadata = struct.unpack_from("<Q", data, 16)[0]
    at, arrays = 24, {}

    def take(form):
        nonlocal at
        value = struct.unpack_from("<" + form, data, at)[0]
        at += struct.calcsize("<" + form)
        return value

    def text():
        nonlocal at
        n_bytes = take("Q")
        at += n_bytes
        return data[at - n_bytes : at].decode()

    for _ in range(n_metadata):
        key, kind = text(), take("I")
        if kind == 8:
            text()
        elif kind == 9:
            element, count = take("I"), take("Q")
            arrays[key] = [text() if element == 8 else take("i") for _ in range(count)]
        else:
            take("I")
    return data[24:at], n_metadata, arrays


def tokenizer_json(arrays):
    tokens, kinds = arrays["tokenizer.ggml.tokens"], arrays["tokenizer.ggml.token_type"]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": i, "content": text, "special": kind == 3} | plain
        for i, (text, kind) in enumerate(zip(tokens, kinds))
        if kind != 1
    ]
    split = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False}
    letters = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    return {
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, letters]},
        "model": {
            "type": "BPE",
            "vocab": {text: i for i, (text, kind) in enumerate(zip(tokens, kinds)) if kind == 1},
            "merges": arrays["tokenizer.ggml.merges"],
        },
    }


def main(corpus):
    metadata, n_metadata, arrays = read_golden()
    header = lambda n_tensors: struct.pack("<4sIQQ", b"GGUF", 3, n_tensors, n_metadata) + metadata
    name = b"token_embd.weight"
    tensor = struct.pack("<Q", len(name)) + name + struct.pack("<IQQIQ", 2, 4, 2, 0, 0)
    whole = header(1) + tensor
    whole += bytes(-len(whole) % 32 + 32)
    entries = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
        "b": {"dtype": "BF16", "shape": [2], "data_offsets": [8, 12]},
    }
    entries = json.dumps(entries).encode()
    config = {
        "model_type": "qwen2", "hidden_act": "silu", "hidden_size": 56, "intermediate_size": 152,
        "num_hidden_layers": 2, "num_attention_heads": 14, "num_key_value_heads": 2,
        "vocab_size": 276, "max_position_embeddings": 256, "rms_norm_eps": 1e-6,
        "rope_theta": 1e6, "eos_token_id": [268, 267], "tie_word_embeddings": True,
    }
    index = {"metadata": {}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    seeds = {
        "gguf/whole": whole,
        "gguf/start": header(7),
        "safetensors/file": struct.pack("<Q", len(entries)) + entries + bytes(12),
        "safetensors/config": json.dumps(config).encode(),
        "safetensors/index": json.dumps(index).encode(),
        "tokenizer_gguf/header": header(0),
        "tokenizer_json/file": json.dumps(tokenizer_json(arrays)).encode(),
        "saved_prefix/empty": bytes([1]) + struct.pack("<QB", 0, 0),
    }
    for path, content in seeds.items():
        path = pathlib.Path(corpus, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


main(sys.argv[1])
