"""Each error has its type, names what is wrong, and inherits a builtin."""

from pathlib import Path

import pytest
from conftest import RULES_ONLY, rules_only

import inwarden


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (inwarden.ConfigurationError, ValueError),
        (inwarden.ModelNotFoundError, FileNotFoundError),
        (inwarden.HostError, OSError),
        (inwarden.AuditError, OSError),
        (inwarden.DataError, ValueError),
        (inwarden.ForkedProcessError, RuntimeError),
        (inwarden.ToolCallDenied, PermissionError),
    ],
)
def test_errors_have_one_root_and_a_builtin(error, builtin):
    assert issubclass(error, inwarden.InwardenError)
    assert issubclass(error, builtin)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mode": "loud"}, "mode"),
        ({"failure": "ajar"}, "failure"),
        ({"deadline_s": -1.0}, "deadline_s"),
        ({"deadline_s": 0.0}, "deadline_s"),
        ({"deadline_s": 3601}, "deadline_s"),
        ({"deadline_s": float("nan")}, "deadline_s"),
        ({"deadline_s": float("inf")}, "deadline_s"),
        ({"queue": 0}, "queue"),
        ({"queue": -1}, "queue"),
        ({"queue": 65_537}, "queue"),
        ({"without": ["policy"]}, "without"),
        ({"device": "gpu"}, "device"),
        ({"device": "cuda"}, "device"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(options, named):
    with pytest.raises(inwarden.ConfigurationError, match=f"{named}=.*allowed are"):
        rules_only(**options)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mode": None}, "mode"),
        ({"deadline_s": "soon"}, "deadline_s"),
        ({"queue": 1.5}, "queue"),
        ({"audit_log": 7}, "audit_log"),
        ({"model": b"x"}, "model"),
        ({"policies": [3]}, "policies"),
        ({"device": 0}, "device"),
    ],
)
def test_a_wrong_type_is_a_type_error_that_names_the_argument(options, named):
    with pytest.raises(TypeError, match=f"^{named}: "):
        rules_only(**options)


def test_an_integer_of_any_size_is_no_crash():
    with pytest.raises(inwarden.ConfigurationError, match="^queue: "):
        rules_only(queue=2**100)


@pytest.mark.parametrize("missing", ["mode", "failure"])
def test_decisions_have_no_default(missing):
    options = {"mode": "enforce", "failure": "closed"}
    del options[missing]
    with pytest.raises(TypeError, match=missing):
        inwarden.Guard(**options, without=RULES_ONLY)


def test_unknown_keywords_are_errors():
    with pytest.raises(TypeError, match="dead_line"):
        rules_only(dead_line=3)


def test_a_missing_model_names_the_command_that_gets_it(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="inwarden models pull") as caught:
        inwarden.Guard(mode="enforce", failure="closed", models_dir=tmp_path)
    assert isinstance(caught.value, inwarden.ModelNotFoundError)


def test_an_unknown_model_is_named(tmp_path: Path):
    with pytest.raises(inwarden.ModelNotFoundError, match="gpt-0"):
        rules_only(model="gpt-0", models_dir=tmp_path, without=["precedents"])


def test_a_card_needs_the_wheel_that_was_built_for_it(tmp_path: Path):
    with pytest.raises(inwarden.HostError, match="built with the feature `cuda`"):
        rules_only(device="cuda:0", models_dir=tmp_path, without=["precedents"])


def test_a_garbage_model_file_is_a_data_error(tmp_path: Path):
    directory = tmp_path / inwarden.DEFAULT_MODEL
    directory.mkdir()
    (directory / f"{inwarden.DEFAULT_MODEL}.gguf").write_bytes(b"garbage")
    with pytest.raises(inwarden.DataError, match=inwarden.DEFAULT_MODEL):
        rules_only(models_dir=tmp_path, without=["precedents"])


def test_a_missing_policy_file_is_a_file_not_found_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="none.cedar"):
        rules_only(policies=[tmp_path / "none.cedar"])


@pytest.mark.parametrize(
    "text",
    [
        "permit (principal, action, resource);",
        '@id("broken") permit (principal',
        '@id("unknown") permit (principal, action == Action::"fly", resource);',
    ],
)
def test_a_policy_that_does_not_load_is_a_configuration_error(tmp_path: Path, text):
    policy = tmp_path / "own.cedar"
    policy.write_text(text)
    with pytest.raises(inwarden.ConfigurationError, match="own.cedar"):
        rules_only(policies=[policy])
