"""Measures the speed of the package, beside the bare floor and a peer.

`python -m bench --help` says how. Nothing here is asserted: figures depend on the
machine and on what else it does, so compare only those of one run.
"""
