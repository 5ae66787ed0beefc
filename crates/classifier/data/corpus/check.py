#!/usr/bin/env python3
"""Checks the exec part of the corpus: format, counts, near-duplicates, and what length and form alone give away.

    python3 check.py            # report; exit status 1 when a check fails
    python3 check.py --pairs    # also lists pairs whose two rows are far apart

Standard library only. `README.md` beside this file describes the format.
"""
import collections
import json
import math
import pathlib
import random
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
FORMS = ("argv", "sh-c", "script", "heredoc", "interpreter")
TIERS = {"malicious": {"core", "contextual"}, "benign": {"hard", "plain"}}
KEYS = {"id", "label", "technique", "family", "form", "tier", "argv", "parent", "pair"}
NEAR = 0.75
MAX_AUC = 0.60
MIN_ATTACKS, MIN_BENIGN, MIN_PAIRS = 1200, 1500, 1000
MAX_ARGUMENT_BYTES = 16384


SHELLS = {"sh", "bash", "dash", "ash", "zsh", "ksh"}
CODE_OPTION = {
    "perl": r"-[a-zA-Z0-9]*[eE]", "ruby": r"-[a-z]*e", "node": r"-[pe]|--eval", "php": r"-r", "lua": r"-e", "Rscript": r"-e",
    "bun": r"-e", "julia": r"-e", "groovy": r"-e", "elixir": r"-e", "ghc": r"-e", "scala": r"-e", "erl": r"-eval", "guile": r"-c",
    "emacs": r"--eval", "deno": r"eval", "pwsh": r"-c", "octave": r"--eval", "ipython": r"-c",
}


def form_of(argv):
    """The form of an execution, by its arguments alone; `sudo`, `nohup` and their like are looked through."""
    rest = list(argv)
    while len(rest) > 1:
        name = rest[0].rsplit("/", 1)[-1]
        if name in ("sudo", "env", "nohup", "setsid", "nice", "timeout", "busybox", "ionice"):
            rest.pop(0)
            while len(rest) > 1 and (rest[0].startswith("-") or rest[0].isdigit() or "=" in rest[0]):
                rest.pop(0)
            continue
        break
    name = rest[0].rsplit("/", 1)[-1]
    if name in SHELLS:
        at = next((i for i, a in enumerate(rest[1:-1], 1) if re.fullmatch(r"-[a-z]*c", a)), None)
        if at is None:
            return "argv"
        text = rest[at + 1]
        if "\n" not in text:
            return "sh-c"
        return "heredoc" if re.search(r"(?<!<)<<(?!<)-?\s*['\"]?[A-Za-z_]", text) else "script"
    if name in ("awk", "gawk", "mawk"):
        return "interpreter"
    option = r"-[a-zA-Z]*c" if name.startswith("python") else CODE_OPTION.get(name)
    if option and any(re.fullmatch(option, a) for a in rest[1:-1]):
        return "interpreter"
    return "argv"


def load(directory=HERE):
    """All exec rows with the name of their file, and the problems of their format."""
    rows, problems, ids = [], [], set()
    for path in sorted(directory.glob("exec-*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            where = f"{path.name}:{number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                problems.append(f"{where}: not JSON: {error}")
                continue
            problems += [f"{where}: {text}" for text in format_problems(row)]
            if row.get("id") in ids:
                problems.append(f"{where}: id {row['id']} occurs twice")
            ids.add(row.get("id"))
            row["_file"] = path.name
            rows.append(row)
    return rows, problems


def format_problems(row):
    """What is wrong with one row."""
    if not isinstance(row, dict):
        return ["not an object"]
    out = [f"unknown key {key}" for key in row if key not in KEYS]
    out += [f"missing {key}" for key in ("id", "label", "family", "form", "tier", "argv") if key not in row]
    if out:
        return out
    if row["label"] not in TIERS:
        return [f"label {row['label']!r}"]
    if row["tier"] not in TIERS[row["label"]]:
        out.append(f"tier {row['tier']!r} of a {row['label']} row")
    if row["form"] not in FORMS:
        out.append(f"form {row['form']!r}")
    if not re.fullmatch(r"[a-z0-9_]+", row["family"]):
        out.append(f"family {row['family']!r}")
    technique = row.get("technique")
    if technique is not None and not re.fullmatch(r"T\d{4}(\.\d{3})?", technique):
        out.append(f"technique {technique!r}")
    if row["label"] == "malicious" and technique is None:
        out.append("an attack without a technique")
    argv = row["argv"]
    if not isinstance(argv, list) or not argv or not all(isinstance(a, str) for a in argv) or not argv[0]:
        return out + ["argv is not a list of strings"]
    if row["form"] in FORMS and row["form"] != form_of(argv):
        out.append(f"form {row['form']!r}, but the arguments are of form {form_of(argv)!r}")
    if any("\0" in a or len(a.encode()) > MAX_ARGUMENT_BYTES for a in argv):
        out.append("an argument with a NUL or over the limit")
    if re.search(r"%(?:IP|LAN|[HGDPUWSTXNM])\d?%(?!\w)|\b(?:B64|HEX|XESC|OCT|REV|ROT|GZ64)\(\(", " ".join(argv)):
        out.append("a placeholder was left in")
    return out


def grams(text, size=5):
    """The set of character 5-grams of a text with runs of white space made one."""
    text = re.sub(r"\s+", " ", text.strip())
    return {text[i:i + size] for i in range(max(1, len(text) - size + 1))}


def jaccard(a, b):
    """Size of the common part over the size of the union."""
    common = len(a & b)
    return common / (len(a) + len(b) - common)


def near_duplicates(texts, threshold=NEAR):
    """Index of each text whose 5-gram Jaccard with an earlier kept text is over the threshold -> that text.

    Exact: with grams in a fixed order from rare to common, two sets above the threshold share one
    of their first `n - ceil(threshold * n) + 1` grams, so only those are indexed.
    """
    sets = [grams(text) for text in texts]
    frequency = collections.Counter(gram for one in sets for gram in one)
    index, duplicates = collections.defaultdict(list), {}
    for i, one in enumerate(sets):
        n = len(one)
        prefix = sorted(one, key=lambda g: (frequency[g], g))[: n - math.ceil(threshold * n) + 1]
        for j in {j for gram in prefix for j in index[gram]}:
            if min(n, len(sets[j])) > threshold * max(n, len(sets[j])) and jaccard(one, sets[j]) > threshold:
                duplicates[i] = j
                break
        else:
            for gram in prefix:
                index[gram].append(i)
    return duplicates


def auc(scored):
    """Area under the ROC curve of (score, is_attack) pairs; ties count half."""
    scored = sorted(scored)
    positives = sum(1 for _, y in scored if y)
    negatives = len(scored) - positives
    total, i, below = 0.0, 0, 0
    while i < len(scored):
        j = i
        while j < len(scored) and scored[j][0] == scored[i][0]:
            j += 1
        attacks = sum(1 for _, y in scored[i:j] if y)
        harmless = j - i - attacks
        total += attacks * (below + harmless / 2)
        below += harmless
        i = j
    return total / (positives * negatives) if positives and negatives else 0.5


def shape(row):
    """What the shape-only classifier sees: form, number of characters, of arguments, of lines."""
    text = " ".join(row["argv"])
    return row["form"], len(text), len(row["argv"]), text.count("\n")


def shape_auc(rows, folds=5, bins=8):
    """Cross-validated AUC of two classifiers that see only the shape; returns (histogram, logistic)."""
    order = list(range(len(rows)))
    random.Random(7).shuffle(order)
    shapes = [shape(row) for row in rows]
    labels = [row["label"] == "malicious" for row in rows]
    base = sum(labels) / len(labels)
    by_form = collections.defaultdict(list)
    for form, length, _, _ in shapes:
        by_form[form].append(length)
    edges = {f: [sorted(v)[len(v) * k // bins] for k in range(1, bins)] for f, v in by_form.items()}
    cell = [(s[0], sum(s[1] >= e for e in edges[s[0]])) for s in shapes]
    histogram, logistic = [], []
    for fold in range(folds):
        test = set(order[fold::folds])
        train = [i for i in order if i not in test]
        count = collections.defaultdict(lambda: [0, 0])
        for i in train:
            count[cell[i]][labels[i]] += 1
        for i in test:
            harmless, attacks = count[cell[i]]
            histogram.append(((attacks + 4 * base) / (harmless + attacks + 4), labels[i]))
        weights = fit([vector(shapes[i]) for i in train], [labels[i] for i in train])
        logistic += [(sum(w * x for w, x in zip(weights, vector(shapes[i]))), labels[i]) for i in test]
    return auc(histogram), auc(logistic)


def vector(one):
    """Shape as numbers: bias, one-hot form, log length and its square, log of arguments and of lines."""
    form, length, arguments, lines = one
    size = math.log(1 + length) - 4.5
    return [1.0] + [float(form == f) for f in FORMS] + [size, size * size, math.log(arguments) - 1, math.log(1 + lines)]


def fit(xs, ys, rounds=120, rate=0.8):
    """Logistic regression by plain gradient descent."""
    weights = [0.0] * len(xs[0])
    for _ in range(rounds):
        slope = [0.0] * len(weights)
        for x, y in zip(xs, ys):
            z = sum(w * v for w, v in zip(weights, x))
            error = 1 / (1 + math.exp(-max(-30.0, min(30.0, z)))) - y
            for k, v in enumerate(x):
                slope[k] += error * v
        weights = [w - rate * (s / len(xs) + 1e-4 * w) for w, s in zip(weights, slope)]
    return weights


def report(title, rows):
    """Prints counts by form with mean lengths, and returns the greater shape-only AUC."""
    print(f"\n{title}: {len(rows)} rows")
    for label in TIERS:
        own = [row for row in rows if row["label"] == label]
        if not own:
            continue
        cells = []
        for form in FORMS:
            lengths = [shape(row)[1] for row in own if row["form"] == form]
            mean = sum(lengths) / len(lengths) if lengths else 0
            cells.append(f"{form} {100 * len(lengths) / len(own):.1f} % (mean {mean:.0f})")
        mean = sum(shape(row)[1] for row in own) / len(own)
        print(f"  {label}: {len(own)}, mean length {mean:.0f}: " + ", ".join(cells))
    histogram, logistic = shape_auc(rows)
    print(f"  AUC from length and form alone: histogram {histogram:.3f}, logistic {logistic:.3f}")
    return max(histogram, logistic)


def pair_problems(rows, show):
    """Checks that every pair is one attack and one harmless row of one form, close in text; counts distinct ones."""
    pairs = collections.defaultdict(list)
    for row in rows:
        if "pair" in row:
            pairs[row["pair"]].append(row)
    problems, distances = [], []
    for name, members in pairs.items():
        if sorted(m["label"] for m in members) != ["benign", "malicious"]:
            problems.append(f"pair {name}: not one attack and one harmless row")
            continue
        a, b = members
        if a["form"] != b["form"]:
            problems.append(f"pair {name}: two forms")
        if a.get("parent") != b.get("parent"):
            problems.append(f"pair {name}: two parents")
        if a["argv"] == b["argv"]:
            problems.append(f"pair {name}: the two rows are the same")
        close = jaccard(grams(" ".join(a["argv"])), grams(" ".join(b["argv"])))
        distances.append(close)
        if show and close < 0.2:
            print(f"  far apart ({close:.2f}): {name}")
    attacks = [" ".join(m["argv"]) for ms in pairs.values() for m in ms if m["label"] == "malicious"]
    distinct = len(attacks) - len(near_duplicates(attacks))
    mean = sum(distances) / len(distances) if distances else 0
    print(f"\npairs: {len(pairs)}; mean Jaccard of the two rows {mean:.2f}; attack sides that are not near-duplicates of each other: {distinct}")
    return problems, len(pairs)


def main():
    rows, problems = load()
    written = [row for row in rows if "pair" not in row and not row["_file"].startswith("exec-recorded")]
    texts = [" ".join(row["argv"]) for row in written]
    duplicates = near_duplicates(texts)
    counted = [row for i, row in enumerate(written) if i not in duplicates]
    crossing = sum(written[i]["label"] != written[j]["label"] for i, j in duplicates.items())
    print(f"written rows outside pairs: {len(written)}; near-duplicates: {len(duplicates)} ({crossing} across labels)")
    for name, n in sorted(collections.Counter(row["_file"] for row in rows).items()):
        print(f"  {n:5} {name}")
    paired = [" ".join(row["argv"]) for row in rows if "pair" in row]
    overlap = sum(i >= len(texts) > j for i, j in near_duplicates(texts + paired).items())
    print(f"pair rows that are near-duplicates of a written row outside pairs: {overlap}")
    for label, tiers in TIERS.items():
        own = [row for row in counted if row["label"] == label]
        print(f"{label}: {len(own)}; tiers {dict(collections.Counter(row['tier'] for row in own))}; "
              f"families {len({row['family'] for row in own})}; "
              f"techniques {len({row.get('technique') for row in own} - {None})}; programs {len({row['argv'][0] for row in own})}")
    worst = report("written, outside pairs", counted)
    worst = max(worst, report("written, with pairs", [r for r in rows if not r["_file"].startswith("exec-recorded")]))
    worst = max(worst, report("all, with the recorded", rows))
    problem, n_pairs = pair_problems(rows, "--pairs" in sys.argv)
    problems += problem
    attacks = sum(row["label"] == "malicious" for row in counted)
    for name, have, least in (("attacks", attacks, MIN_ATTACKS), ("written benign rows", len(counted) - attacks, MIN_BENIGN), ("pairs", n_pairs, MIN_PAIRS)):
        if have < least:
            problems.append(f"{have} {name}, at least {least} are wanted")
    if worst > MAX_AUC:
        problems.append(f"length and form alone reach AUC {worst:.3f}, at most {MAX_AUC} is allowed")
    for text in problems[:40]:
        print("PROBLEM", text)
    print(f"\n{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
