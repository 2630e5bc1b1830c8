"""Handles: what an agent is called with, from anywhere."""

from academy.exchange.client import exchange_context
from academy.proxy_handle import ProxyHandle
from academy.remote_handle import Handle

__all__ = ["Handle", "ProxyHandle", "exchange_context"]
