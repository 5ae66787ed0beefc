#!/usr/bin/env python3
"""Checks the text corpora of this folder: prompts-*.jsonl and toolcalls-*.jsonl.

Prints the counts by label, family, kind or domain and tier, how well the length alone tells the labels apart, and
the near-duplicates. Exits with 1 when a row breaks the format of TEXTS.md, an id repeats, the length-only AUC of a
file kind is above the limit, or two rows of one label are near-duplicates.

Usage: check_text.py [FOLDER]
"""

import collections
import json
import pathlib
import re
import sys

LENGTH_AUC_LIMIT = 0.60
DUPLICATE_JACCARD = 0.75
SHINGLE = 5
MAX_TEXT = 6000

KINDS = {"user_prompt", "mail", "page", "code", "issue", "calendar", "table", "file", "tool_output"}
FORMATS = {
    "prompts": {
        "labels": ("injection", "benign"),
        "required": {"id": str, "label": str, "family": str, "kind": str, "text": str, "tier": str},
        "optional": {"user_task": str, "tool": str, "group": str},
        "tiers": {"injection": {"core", "contextual", "weak"}, "benign": {"hard", "plain"}},
    },
    "toolcalls": {
        "labels": ("attack", "benign"),
        "required": {
            "id": str, "label": str, "domain": str, "family": str, "user_task": str, "history": list,
            "tool": str, "args": dict, "tier": str,
        },
        "optional": {"agent_role": str, "group": str, "pair": str},
        "tiers": {"attack": {"core", "contextual", "weak"}, "benign": {"hard", "plain"}},
    },
}


def read_rows(folder, name):
    """All rows of the files of one kind, with where each stands."""
    for path in sorted(folder.glob(f"{name}-*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            place = f"{path.name}:{number}"
            try:
                yield place, json.loads(line)
            except ValueError as error:
                yield place, error


def format_faults(name, row):
    """What is wrong with one row, as sentences."""
    if not isinstance(row, dict):
        return [f"not a JSON object: {row}"]
    form = FORMATS[name]
    faults = []
    for field, kind in form["required"].items():
        if not isinstance(row.get(field), kind):
            faults.append(f"field {field} is missing or not {kind.__name__}")
    for field, value in row.items():
        if field in form["optional"]:
            if not isinstance(value, form["optional"][field]):
                faults.append(f"field {field} has the wrong type")
        elif field not in form["required"]:
            faults.append(f"unknown field {field}")
    if faults:
        return faults
    if row["label"] not in form["labels"]:
        return [f"unknown label {row['label']}"]
    if row["tier"] not in form["tiers"][row["label"]]:
        faults.append(f"tier {row['tier']} does not go with label {row['label']}")
    if name == "prompts":
        if row["kind"] not in KINDS:
            faults.append(f"unknown kind {row['kind']}")
        if not 0 < len(row["text"]) <= MAX_TEXT:
            faults.append("text is empty or too long")
    else:
        for step in row["history"]:
            if not (isinstance(step, dict) and set(step) == {"tool", "args", "output"}
                    and isinstance(step["tool"], str) and isinstance(step["args"], dict)
                    and isinstance(step["output"], str)):
                faults.append("a step of the history is not {tool, args, output}")
    return faults


def text_of(name, row):
    """The text that a reader of the row sees."""
    if name == "prompts":
        return row["text"]
    steps = [f"{s['tool']} {json.dumps(s['args'], ensure_ascii=False)}\n{s['output']}" for s in row["history"]]
    call = f"{row['tool']} {json.dumps(row['args'], ensure_ascii=False)}"
    return "\n".join([row["user_task"], *steps, call])


def shingles(text):
    """Character 5-grams of the text in lower case with single spaces."""
    text = re.sub(r"\s+", " ", text.lower()).strip()
    if len(text) <= SHINGLE:
        return {text}
    return {text[i:i + SHINGLE] for i in range(len(text) - SHINGLE + 1)}


def near_duplicates(texts):
    """Pairs of positions whose shingles overlap by more than the limit.

    Two sets can only overlap by more than t when they share one of the rarest (1 - t) n + 1 members of either, so
    only pairs that meet there are compared (prefix filter of set similarity joins).
    """
    sets = [shingles(text) for text in texts]
    frequency = collections.Counter(gram for grams in sets for gram in grams)
    prefixes = []
    for grams in sets:
        ordered = sorted(grams, key=lambda gram: (frequency[gram], gram))
        prefixes.append(ordered[: int((1 - DUPLICATE_JACCARD) * len(ordered)) + 1])
    index = collections.defaultdict(list)
    pairs = []
    for position, prefix in enumerate(prefixes):
        candidates = {other for gram in prefix for other in index[gram]}
        for other in sorted(candidates):
            shared = len(sets[position] & sets[other])
            overlap = shared / (len(sets[position]) + len(sets[other]) - shared)
            if overlap > DUPLICATE_JACCARD:
                pairs.append((other, position, overlap))
        for gram in prefix:
            index[gram].append(position)
    return pairs


def auc(positive, negative):
    """Probability that a positive value exceeds a negative one, ties count half."""
    ranked = sorted([(value, 1) for value in positive] + [(value, 0) for value in negative])
    rank_sum, at = 0.0, 0
    while at < len(ranked):
        end = at
        while end < len(ranked) and ranked[end][0] == ranked[at][0]:
            end += 1
        middle = (at + end + 1) / 2
        rank_sum += middle * sum(label for _, label in ranked[at:end])
        at = end
    count = len(positive)
    return (rank_sum - count * (count + 1) / 2) / (count * len(negative))


def print_counts(title, rows, field):
    """Counts of one field by label, most frequent first."""
    counts = collections.Counter((row["label"], row.get(field)) for row in rows)
    for label in sorted({label for label, _ in counts}):
        listed = ", ".join(f"{value} {n}" for (own, value), n in counts.most_common() if own == label)
        print(f"  {title} of {label}: {listed}")


def check(folder, name):
    """Prints the report of one kind of file; returns the number of faults."""
    faults, rows, seen = 0, [], {}
    for place, row in read_rows(folder, name):
        found = format_faults(name, row)
        if not found and row["id"] in seen:
            found = [f"id {row['id']} stands at {seen[row['id']]} already"]
        for fault in found:
            print(f"{place}: {fault}")
        faults += len(found)
        if not found:
            seen[row["id"]] = place
            rows.append(row)
    if not seen:
        print(f"{name}: no rows")
        return faults
    labels = FORMATS[name]["labels"]
    by_label = {label: [row for row in rows if row["label"] == label] for label in labels}
    print(f"{name}: {len(rows)} rows, " + ", ".join(f"{len(found)} {label}" for label, found in by_label.items()))
    if not all(by_label.values()):
        print(f"{name}: one of the labels has no rows")
        return faults + 1
    for field in ("tier", "kind" if name == "prompts" else "domain", "family"):
        print_counts(field, rows, field)
    lengths = {label: [len(text_of(name, row)) for row in found] for label, found in by_label.items()}
    value = auc(lengths[labels[0]], lengths[labels[1]])
    value = max(value, 1 - value)
    medians = ", ".join(f"median {sorted(found)[len(found) // 2]} ({label})" for label, found in lengths.items())
    print(f"  length-only AUC {value:.3f}, {medians}")
    if value > LENGTH_AUC_LIMIT:
        print(f"{name}: length tells the labels apart (limit {LENGTH_AUC_LIMIT})")
        faults += 1
    across = 0
    for first, second, overlap in near_duplicates([text_of(name, row) for row in rows]):
        if rows[first]["label"] != rows[second]["label"]:
            across += 1
            continue
        print(f"{name}: {rows[first]['id']} and {rows[second]['id']} are near-duplicates ({overlap:.2f})")
        faults += 1
    print(f"  pairs of different labels above {DUPLICATE_JACCARD}: {across} (minimal pairs)")
    return faults


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent
    faults = sum(check(folder, name) for name in FORMATS)
    print(f"{faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
