"""Makes model.gguf and reference.json: a tiny seeded Qwen2.5 and what it computes.

The reference is plain numpy in float64, written from modeling_qwen2.py and the
GGUF specification; it shares no code with the crate. Run with Python 3.11 and
numpy 2.4.6:   python make.py

Shape: 1/16 of the 0.5B's widths, so that no width is a multiple of 256 and few
of 32; grouped heads, biases over 100 on one layer's keys, tied head.
Tolerance: the crate computes in f32 and must reproduce every logit to 2e-3 and
the 64 greedy tokens exactly; the script asserts that the best token always
leads by more than 0.02.
"""

import json
import struct

import numpy as np

LAYERS, HIDDEN, INTERMEDIATE, HEADS, KV_HEADS = 2, 56, 152, 14, 2
HEAD_DIM = HIDDEN // HEADS
THETA, EPS = 1e6, 1e-6


def byte_letters():
    """GPT-2's printable stand-in for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(others)) for b in range(256)]


MERGES = ["Ġ t", "h e", "Ġt he", "i n", "e r", "a n", "o n", "r e", "Ġ a", "s t"]
TOKENS = byte_letters() + [m.replace(" ", "") for m in MERGES]
ADDED = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>"]
KINDS = [1] * len(TOKENS) + [3, 3, 3, 4]
TOKENS += ADDED
VOCAB = len(TOKENS) + 6  # a few rows without a token, as in the real files


def make_weights():
    random = np.random.default_rng(4)
    half = lambda *shape, scale: (random.standard_normal(shape) * scale).astype(np.float16)
    single = lambda *shape, scale, mean=0.0: (
        mean + random.standard_normal(shape) * scale
    ).astype(np.float32)
    tensors = {"token_embd.weight": half(VOCAB, HIDDEN, scale=0.6)}
    for i in range(LAYERS):
        kv = KV_HEADS * HEAD_DIM
        tensors |= {
            f"blk.{i}.attn_norm.weight": single(HIDDEN, scale=0.2, mean=1.0),
            f"blk.{i}.attn_q.weight": half(HIDDEN, HIDDEN, scale=0.3),
            f"blk.{i}.attn_q.bias": single(HIDDEN, scale=0.5),
            f"blk.{i}.attn_k.weight": half(kv, HIDDEN, scale=0.3),
            f"blk.{i}.attn_k.bias": single(kv, scale=60.0 if i == 1 else 0.5),
            f"blk.{i}.attn_v.weight": half(kv, HIDDEN, scale=0.3),
            f"blk.{i}.attn_v.bias": single(kv, scale=0.5),
            f"blk.{i}.attn_output.weight": half(HIDDEN, HIDDEN, scale=0.2),
            f"blk.{i}.ffn_norm.weight": single(HIDDEN, scale=0.2, mean=1.0),
            f"blk.{i}.ffn_gate.weight": half(INTERMEDIATE, HIDDEN, scale=0.2),
            f"blk.{i}.ffn_up.weight": half(INTERMEDIATE, HIDDEN, scale=0.2),
            f"blk.{i}.ffn_down.weight": half(HIDDEN, INTERMEDIATE, scale=0.2),
        }
    tensors["output_norm.weight"] = single(HIDDEN, scale=0.2, mean=1.0)
    return tensors


def write_gguf(path, tensors):
    text = lambda s: struct.pack("<Q", len(s.encode())) + s.encode()
    u32 = lambda v: struct.pack("<II", 4, v)
    f32 = lambda v: struct.pack("<If", 6, v)
    string = lambda s: struct.pack("<I", 8) + text(s)
    strings = lambda v: struct.pack("<IIQ", 9, 8, len(v)) + b"".join(map(text, v))
    i32s = lambda v: struct.pack("<IIQ", 9, 5, len(v)) + struct.pack(f"<{len(v)}i", *v)
    metadata = {
        "general.architecture": string("qwen2"),
        "qwen2.block_count": u32(LAYERS),
        "qwen2.context_length": u32(256),
        "qwen2.embedding_length": u32(HIDDEN),
        "qwen2.feed_forward_length": u32(INTERMEDIATE),
        "qwen2.attention.head_count": u32(HEADS),
        "qwen2.attention.head_count_kv": u32(KV_HEADS),
        "qwen2.rope.freq_base": f32(THETA),
        "qwen2.attention.layer_norm_rms_epsilon": f32(EPS),
        "tokenizer.ggml.model": string("gpt2"),
        "tokenizer.ggml.pre": string("qwen2"),
        "tokenizer.ggml.tokens": strings(TOKENS),
        "tokenizer.ggml.token_type": i32s(KINDS),
        "tokenizer.ggml.merges": strings(MERGES),
        "tokenizer.ggml.eos_token_id": u32(TOKENS.index("<|im_end|>")),
    }
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        header += text(key) + value
    data = b""
    for name, tensor in tensors.items():
        shape = tensor.shape[::-1]
        kind = 1 if tensor.dtype == np.float16 else 0
        header += text(name) + struct.pack("<I", len(shape))
        header += struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, len(data))
        data += tensor.tobytes()
        data += bytes(-len(data) % 32)
    header += bytes(-len(header) % 32)
    with open(path, "wb") as file:
        file.write(header + data)


def logits(tensors, ids):
    """All positions: (len(ids), VOCAB), float64."""
    w = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    norm = lambda x, weight: x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * weight
    n = len(ids)
    frequencies = THETA ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    angles = np.arange(n)[:, None] * frequencies
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]

    def rotate(x):
        first, second = np.split(x, 2, axis=-1)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)

    x = w["token_embd.weight"][ids]
    for i in range(LAYERS):
        p = lambda name: w[f"blk.{i}.{name}"]
        h = norm(x, p("attn_norm.weight"))
        project = lambda part: h @ p(f"attn_{part}.weight").T + p(f"attn_{part}.bias")
        q = rotate(project("q").reshape(n, HEADS, HEAD_DIM))
        k = rotate(project("k").reshape(n, KV_HEADS, HEAD_DIM))
        v = project("v").reshape(n, KV_HEADS, HEAD_DIM)
        k, v = (np.repeat(t, HEADS // KV_HEADS, axis=1) for t in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(HEAD_DIM)
        scores += np.triu(np.full((n, n), -np.inf), 1)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", weights, v).reshape(n, HIDDEN)
        x = x + mixed @ p("attn_output.weight").T
        h = norm(x, p("ffn_norm.weight"))
        gate = h @ p("ffn_gate.weight").T
        gate = gate / (1 + np.exp(-gate)) * (h @ p("ffn_up.weight").T)
        x = x + gate @ p("ffn_down.weight").T
    return norm(x, w["output_norm.weight"]) @ w["token_embd.weight"].T


def log_probability(tensors, ids, label):
    total = 0.0
    for i, token in enumerate(label):
        last = logits(tensors, ids + label[:i])[-1]
        total += last[token] - last.max() - np.log(np.exp(last - last.max()).sum())
    return total


def main():
    tensors = make_weights()
    write_gguf("model.gguf", tensors)
    prompt = [(7 * i * i + 3) % 260 for i in range(40)]
    ids, margins = list(prompt), []
    for _ in range(64):
        last = logits(tensors, ids)[-1]
        runner_up, best = np.sort(last)[-2:]
        margins.append(best - runner_up)
        ids.append(int(last.argmax()))
    assert min(margins) > 0.02, min(margins)
    *_, third, second, first = logits(tensors, prompt)[-1].argsort().tolist()
    labels = [[first], [first, 9], [second, 3, 40], [second, 3, 41], [second, 8], [third]]
    reference = {
        "prompt": prompt,
        "logits": [round(float(x), 6) for x in logits(tensors, prompt)[-1]],
        "greedy": ids[len(prompt) :],
        "labels": labels,
        "log_probabilities": [round(log_probability(tensors, prompt, l), 6) for l in labels],
    }
    with open("reference.json", "w") as file:
        json.dump(reference, file)
        file.write("\n")
    print("smallest margin", min(margins))


main()
