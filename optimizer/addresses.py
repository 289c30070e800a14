"""Addresses of databases and servers as they may be written and shown: without their secrets."""

import re

_SECRET = re.compile(r"([^&=?]*(?:pass|pwd|token|secret|key)[^&=]*=)[^&]*", re.IGNORECASE)
_PORT = re.compile(r"[^:]*(:\d*)?")  # of a server without user information
_FILES = ("sqlite", "file")  # whose addresses are paths: nobody logs in there


def without_secrets(uri: str, *, shows_user: bool = False) -> str:
    """Hide passwords, and what a query holds of secrets.

    Args:
        uri: ``scheme://[user[:password]@]place[?query]``, or anything that was meant to be one.
        shows_user: Leave the user's name in, and a mark where a password was.
    """
    scheme, separator, rest = uri.partition("://")
    if separator and scheme.partition("+")[0] in _FILES:
        return uri
    address, mark, query = (rest if separator else uri).partition("?")
    server, slash, path = address.partition("/")
    if "@" not in server and not _PORT.fullmatch(server):
        server, slash, path = address, "", ""  # a slash in a password that is not escaped
    people, at, server = server.rpartition("@")
    user, colon, _ = people.partition(":")
    who = f"{user}{colon and ':***'}{at}" if shows_user and separator else ""
    asked = _SECRET.sub(r"\1***", query)
    shown = f"{server}{slash}{path}{mark}{asked}"
    return f"{scheme}://{who}{shown}" if separator else shown
