"""Measures the package beside its peers; `academy.bench` is what both share.

`python -m bench --help` says how. Nothing here is asserted: figures depend on the
machine and on what else it does, so compare only those of one run.
"""
