from __future__ import annotations

from pathlib import Path

import pytest

from academy.bench.interpreter import Interpreter, ProgramError


def program(tmp_path: Path, code: str) -> Path:
    path = tmp_path / "program.py"
    path.write_text(f"import json, os, sys\n{code}\n")
    return path


def test_settings_in_rows_out(tmp_path: Path) -> None:
    code = "print('noise'); print(json.dumps([json.load(sys.stdin)]))"
    found = Interpreter().run(program(tmp_path, code), {"size": 3})
    assert found == [{"size": 3}]


def test_the_package_is_found_and_what_the_user_has_set_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "academy.py").write_text("raise AssertionError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert (
        Interpreter().evaluate("import academy; print(academy.__name__)") == "academy"
    )


def test_a_program_that_fails(tmp_path: Path) -> None:
    with pytest.raises(
        ProgramError, match=r"(?s)program.py ended with exit code 3.*why"
    ):
        Interpreter().run(
            program(tmp_path, "print('why', file=sys.stderr); sys.exit(3)"), {}
        )


def test_a_program_that_takes_too_long_is_ended_with_all_it_started(
    tmp_path: Path,
) -> None:
    # The pipe that both hold is at its end only when both are gone.
    code = (
        "import subprocess; "
        "subprocess.run([sys.executable, '-c', 'input()'], stdin=os.pipe()[0])"
    )
    with pytest.raises(ProgramError, match=r"program.py took longer than 0.5 s"):
        Interpreter().run(program(tmp_path, code), {}, timeout=0.5)
