#!/usr/bin/env python3
"""Judges labelled rows with `inwarden classify` and says how well, as it is.

Usage: report.py PROGRAM ROWS.jsonl

Each row is an event line with an additional `label`, `malicious` or `benign`,
and optionally a `tier` to break the figures down by. The program never sees
the labels: only `id`, `argv` and `parent` are passed on.
"""

import json
import subprocess
import sys
import time

SEEN = ("id", "argv", "parent")


def auc(scored: list[tuple[float, bool]]) -> float:
    """Area under the ROC curve by ranks; ties count half."""
    ordered = sorted(scored)
    ranks, at = 0.0, 0
    while at < len(ordered):
        end = at
        while end < len(ordered) and ordered[end][0] == ordered[at][0]:
            end += 1
        middle = (at + end + 1) / 2
        ranks += middle * sum(bad for _, bad in ordered[at:end])
        at = end
    bad = sum(is_bad for _, is_bad in scored)
    good = len(scored) - bad
    return (ranks - bad * (bad + 1) / 2) / (bad * good) if bad and good else float("nan")


def recall_at(scored: list[tuple[float, bool]], rate: float) -> float:
    """Recall at the lowest threshold with at most this false positive rate."""
    good = sorted((score for score, bad in scored if not bad), reverse=True)
    allowed = int(rate * len(good))
    threshold = good[allowed] if allowed < len(good) else float("-inf")
    bad = [score for score, is_bad in scored if is_bad]
    return sum(score > threshold for score in bad) / len(bad) if bad else float("nan")


def line(name: str, rows: list[tuple[dict, dict]]) -> str:
    bad = [answer for row, answer in rows if row["label"] == "malicious"]
    good = [answer for row, answer in rows if row["label"] == "benign"]
    flagged = lambda answers: sum(answer["label"] == "malicious" for answer in answers)
    unsure = sum(answer["label"] == "undetermined" for _, answer in rows)
    scored = [
        (answer["score"], row["label"] == "malicious")
        for row, answer in rows
        if answer.get("score") is not None
    ]
    share = lambda part, whole: f"{part / whole:.3f}" if whole else "  -  "
    return (
        f"{name:<24}{len(bad):>6}{len(good):>7}{share(flagged(bad), len(bad)):>9}"
        f"{share(flagged(good), len(good)):>9}{unsure:>8}{auc(scored):>8.3f}{recall_at(scored, 0.01):>9.3f}"
    )


def main() -> int:
    program, path = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(text) for text in file if text.strip()]
    rows = [row for row in rows if row.get("label") in ("malicious", "benign")]
    events = "".join(
        json.dumps({key: row[key] for key in SEEN if key in row}) + "\n" for row in rows
    )
    start = time.monotonic()
    result = subprocess.run([program, "classify", "-"], input=events, text=True, stdout=subprocess.PIPE)
    seconds = time.monotonic() - start
    answers = [json.loads(text) for text in result.stdout.splitlines()]
    if result.returncode != 0 or [a["id"] for a in answers] != [row["id"] for row in rows]:
        print(f"classify ended with {result.returncode} and {len(answers)} of {len(rows)} answers")
        return 1
    pairs = list(zip(rows, answers))
    print(
        f"{'rows':<24}{'bad':>6}{'good':>7}{'recall':>9}{'false+':>9}{'unsure':>8}{'AUC':>8}{'rec@1%':>9}"
    )
    print(line("all", pairs))
    for key in ("tier", "settled_by"):
        of = (lambda row, answer: row.get(key)) if key == "tier" else (lambda row, answer: answer[key])
        for value in sorted({str(of(*pair)) for pair in pairs} - {"None"}):
            print(line(f"{key} {value}", [pair for pair in pairs if str(of(*pair)) == value]))
    print(f"{len(rows)} rows in {seconds:.0f} s, {len(rows) / seconds:.2f} a second")
    return 0


if __name__ == "__main__":
    sys.exit(main())
