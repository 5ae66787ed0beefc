"""The package as installed: stub, metadata, example, and how it ends."""

import ast
import importlib.metadata
import importlib.resources
import inspect
import subprocess
import sys
import types
from pathlib import Path

import pytest
from conftest import ATTACK, RULES_ONLY, rules_only

import inwarden

EXAMPLE = Path(__file__).parents[3] / "examples" / "guard_agent.py"


def test_the_package_is_typed_and_says_its_version():
    files = importlib.resources.files("inwarden")
    assert (files / "py.typed").is_file()
    assert (files / "_native.pyi").is_file()
    assert importlib.metadata.version("inwarden") == inwarden.__version__


def test_the_wheel_serves_all_pythons_from_3_10():
    wheel = importlib.metadata.distribution("inwarden").read_text("WHEEL")
    assert "Tag: cp310-abi3-" in wheel
    assert inwarden._native.__file__.endswith(".abi3.so")


def stub_of_case() -> dict[str, object]:
    """The types of the attributes of `Case` as the stub tells them."""
    text = (importlib.resources.files("inwarden") / "_native.pyi").read_text()
    (case,) = (n for n in ast.parse(text).body if getattr(n, "name", None) == "Case")
    return {
        method.name: eval(ast.unparse(method.returns))
        for method in case.body
        if isinstance(method, ast.FunctionDef)
    }


def is_of(value: object, kind: object) -> bool:
    if isinstance(kind, types.UnionType):
        return any(is_of(value, one) for one in kind.__args__)
    if kind is None or kind is types.NoneType:
        return value is None
    if isinstance(kind, types.GenericAlias):
        parts = [value.keys(), value.values()] if kind.__origin__ is dict else [value]
        inner = zip(parts, kind.__args__, strict=True)
        return type(value) is kind.__origin__ and all(
            is_of(item, one) for items, one in inner for item in items
        )
    return type(value) is kind


def test_a_case_has_the_attributes_of_the_stub_in_their_types(tmp_path: Path):
    recording = tmp_path / "r.jsonl"
    recording.write_text('{"schema":"inwarden.recording/1"}\n{"id":"1","argv":["ls"]}\n')
    (replayed,) = inwarden.Warden.replay(recording, without=RULES_ONLY)
    with rules_only() as guard:
        asked = guard.check_tool_call("a", "shell", ATTACK)
    stub = stub_of_case()
    for case in (replayed, asked):
        public = {name for name in dir(case) if not name.startswith("_")}
        assert public == stub.keys()
        wrong = {n: getattr(case, n) for n, kind in stub.items() if not is_of(getattr(case, n), kind)}
        assert wrong == {}


def test_a_case_cannot_be_made_or_changed():
    with pytest.raises(TypeError):
        inwarden.Case()
    with rules_only() as guard:
        case = guard.check_tool_call("a", "shell", ATTACK)
    with pytest.raises(AttributeError):
        case.allowed = True
    # What it hands out is a copy.
    case.policies.clear()
    assert case.policies == ["never-call-malicious"]


def test_everything_public_is_documented():
    public = [getattr(inwarden, name) for name in inwarden.__all__]
    documented = [thing for thing in public if inspect.isclass(thing)]
    for door in (inwarden.Guard, inwarden.Warden):
        documented += [
            value
            for name, value in vars(door).items()
            if not name.startswith("_") and callable(getattr(door, name))
        ]
    assert [thing for thing in documented if not inspect.getdoc(thing)] == []


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, cwd="/"
    )


def test_a_process_ends_though_its_guard_was_never_closed():
    ended = run(
        "-X",
        "dev",
        "-c",
        "import inwarden\n"
        f"guard = inwarden.Guard(mode='enforce', failure='closed', without={RULES_ONLY})\n"
        f"print(guard.check_tool_call('a', 'shell', {ATTACK}).enforced)\n",
    )
    assert (ended.returncode, ended.stdout) == (0, "deny\n")
    assert "ResourceWarning: unclosed" in ended.stderr


def test_the_example_prints_what_it_promises():
    docstring = ast.get_docstring(ast.parse(EXAMPLE.read_text()))
    expected = inspect.cleandoc(docstring.split("Expected output:")[1])
    ended = run("-W", "error", str(EXAMPLE))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.strip() == expected.strip()
