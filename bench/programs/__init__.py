"""The programs that measure peers, run in the environment that `make peers` makes.

They are like those of `academy.bench.programs`, whose `target` they import.
"""
