"""The programs that are measured, each run in an interpreter of its own.

They are run as scripts that import each other by their bare names, so that `agents.py`
can run in an interpreter that has another release of `academy` and must not find this
one beside it. Each reads its settings as JSON from standard input, and prints rows as
JSON: the fields of a class in `academy.bench.rows`, but for `case`.
"""
