"""The programs that are measured, each run in an interpreter of its own.

They are run as scripts, so that `calls.py` can run in an interpreter that has another
release of `academy` and must not find this one beside it.
"""
