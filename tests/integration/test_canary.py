"""Passwords of a program with workers are to be seen nowhere."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def forms(secret: str) -> list[bytes]:
    """Return a secret as it is, and as parts of base64."""
    found = [secret.encode(), secret.encode().hex().encode()]
    for offset in range(3):
        code = base64.b64encode(b"x" * offset + secret.encode())
        found.append(code[4:-4])
    return found


def test_no_password_is_to_be_seen(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-m", "tests.canary_program", str(seen)],
        env={
            **os.environ,
            "ACADEMY_HOME": str(tmp_path / "home"),
            "PYTHONPATH": str(ROOT),
            "PYTHONASYNCIODEBUG": "1",
        },
        cwd=ROOT,
        capture_output=True,
        timeout=55,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    password, wrong = (seen / "secrets").read_text().split()
    shown = {path.name: path.read_bytes() for path in seen.iterdir()}
    del shown["secrets"]
    shown |= {"output": done.stdout, "error output": done.stderr}
    # It is found where it is meant to be, so it would be found elsewhere, too.
    assert password.encode() in shown.pop("embedded")
    assert set(shown) >= {"texts", "pickles", "errors", "processes", "worker.log"}
    assert b"DEBUG" in shown["main.log"]
    assert b"DEBUG" in shown["worker.log"]
    assert b"no such lattice" in shown["errors"]
    assert b"refused the login" in shown["errors"]
    assert b"academy.worker" in shown["processes"]
    for name, content in shown.items():
        for form in (*forms(password), *forms(wrong)):
            assert form not in content, f"{form!r} is in {name}"


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """Files with passwords for workers are gone when the program has ended."""
    seen = tmp_path / "seen"
    seen.mkdir()
    code = (
        "import pickle\n"
        "from academy.exchange.redis import RedisExchangeFactory\n"
        "pickle.dumps(RedisExchangeFactory('h', 1, password='canary'))\n"
    )
    home = tmp_path / "home"
    env = {**os.environ, "ACADEMY_HOME": str(home), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=30)
    assert list((home / "credentials").iterdir()) == []
