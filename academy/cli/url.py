"""The URL of the server, and keeping its password off the screen."""

from __future__ import annotations

import urllib.parse

VARIABLE = "ACADEMY_REDIS_URL"
"""Environment variable with the URL of the server."""


def redacted(text: str, url: str | None) -> str:
    """Return a text with the password of a URL replaced wherever it occurs."""
    for secret in _secrets(url or ""):
        text = text.replace(secret, "***")
    return text


def _secrets(url: str) -> list[str]:
    """Return the password as it is written and as it is meant, the longest first."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return [url]
    pairs = [pair.partition("=") for pair in parts.query.split("&")]
    queries = [value for name, _, value in pairs if name == "password"]
    written = [parts.password or "", *queries]
    both = {*written, *map(urllib.parse.unquote, written)}
    return sorted(filter(None, both), key=len, reverse=True)


def with_host(url: str, host: str) -> str:
    """Return a URL with another host in it."""
    parts = urllib.parse.urlsplit(url)
    login, _, address = parts.netloc.rpartition("@")
    port = address.rpartition(":")[2]
    host = f"[{host}]" if ":" in host else host
    return parts._replace(netloc=f"{login}@{host}:{port}").geturl()
