"""The delivery protocol under a seeded scheduler with virtual time.

The real core (`Outbox`, `Received`, `judge`, `Session`, `LinkProtocol`) runs between
processes, a server and a network that are models, and that fail in every way which a
seed can think of. See `world` for what happens, `check` for what must hold.
"""
