"""Measures how fast the package is on this machine, beside the bare floor.

The command `academy bench` runs it. Figures depend on the machine and on what else it
does, so compare only those of one run.
"""
