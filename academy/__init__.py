"""Middleware for stateful agents that live on laptops, clusters and clouds.

An agent is a class with actions and control loops; a manager launches agents
through any ``concurrent.futures`` executor, and handles call them wherever they
run. Import what you need from the modules of this package: importing the package
itself loads nothing else.
"""

__version__ = "0.1.0"
