"""One variable of `.env` changes as the service reads the file; all else stays as it was."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from opslib.core.environment import ServiceEnvironment
from opslib.core.errors import ConfigError
from opslib.serving.dotenv import edit_dotenv, set_variable
from opslib.serving.keys import check_key, rotate_key

MULTI_LINE = 'CERTIFICATE="-----BEGIN-----\nAPI_KEY=inside\n-----END-----"\n'
LINES = st.sampled_from(
    [
        "# mine",
        "",
        "A=1",
        "export B='two words'",
        'C="x\nAPI_KEY=inside\n# API_KEY since then\ny"',
        "API_KEY=old  # why",
        "api_key: none",
        "D='it\\'s'",
        'E="never ends',
        "  F = spaced",
        "G",
        "H=${A}x",
    ]
)


def key_in(env_file: Path) -> str:
    secret = ServiceEnvironment(_env_file=env_file).api_key  # type: ignore[call-arg]
    return secret.get_secret_value() if secret else ""


@pytest.mark.parametrize("old", ["API_KEY=old\n", "", "API_KEY='o\nl\nd'\n", "api_key=old\n"])
@pytest.mark.parametrize("above", [True, False])
def test_a_line_inside_a_value_over_several_lines_is_no_variable(
    old: str, above: bool, tmp_path: Path
) -> None:
    env = tmp_path / ".env"
    env.write_text(MULTI_LINE + old if above else old + MULTI_LINE)
    rotate_key(env)
    assert check_key(key_in(env))
    assert dotenv_values(env)["CERTIFICATE"] == "-----BEGIN-----\nAPI_KEY=inside\n-----END-----"
    assert MULTI_LINE in env.read_text()


@pytest.mark.parametrize(
    "path", ["/a b/c.onnx", "/it's#1/ #2.onnx", '/quo"ted.onnx', "/back\\slash.onnx", "/ü.onnx", ""]
)
def test_a_path_is_read_back_as_it_was_given(path: str, tmp_path: Path) -> None:
    env = tmp_path / ".env"
    set_variable(env, "MODEL_PATH", path)
    assert dotenv_values(env) == {"MODEL_PATH": path}


@pytest.mark.parametrize(
    ("text", "value"), [("", "/${HOME}/m.onnx"), ("A='never ends\n", "/it's.onnx")]
)
def test_what_would_be_read_as_something_else_is_refused(
    text: str, value: str, tmp_path: Path
) -> None:
    env = tmp_path / ".env"
    env.write_text(text)
    with pytest.raises(ConfigError, match=r"\.env: MODEL_PATH cannot be written"):
        set_variable(env, "MODEL_PATH", value)
    assert [one.name for one in tmp_path.iterdir()] == [".env"]
    assert env.read_text() == text


def test_a_file_that_is_no_text_is_refused_in_one_line(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_bytes(b"A=\xff\n")
    with pytest.raises(ConfigError, match=r"\.env: not UTF-8 text"):
        set_variable(env, "MODEL_PATH", "/m.onnx")
    assert env.read_bytes() == b"A=\xff\n"


def test_line_ends_export_and_a_byte_order_mark_stay() -> None:
    text = "\ufeff# mine\r\n\r\nexport API_KEY=old\r\nA=1"
    assert edit_dotenv(text, "API_KEY", "new") == "\ufeff# mine\r\n\r\nexport API_KEY=new\r\nA=1"
    assert edit_dotenv(text, "B", "2") == f"{text}\r\nB=2\r\n"


@given(lines=st.lists(LINES, max_size=6))
def test_no_other_variable_changes_whatever_stands_around_it(lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    fresh = edit_dotenv(text, "API_KEY", "abc", note="# API_KEY since now")
    before, after = (
        dict(dotenv_values(stream=StringIO(one), interpolate=False)) for one in (text, fresh)
    )
    assert after.pop("API_KEY") == "abc"
    before.pop("API_KEY", None)
    assert after == before
    assert edit_dotenv(fresh, "API_KEY", "abc", note="# API_KEY since now") == fresh


def test_the_age_of_a_key_in_a_file_that_is_no_text_is_no_traceback(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_bytes(b"A=\xff\n")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        rotate_key(env)
