"""What all who reach a database by its URL have in common."""

from __future__ import annotations

import re

CONNECT_TIMEOUT_S = 20
AMBIGUOUS = "a password holds a character that ends it"
AMBIGUOUS_HINT = "in it, / is written %2F, ? %3F, # %23 and @ %40; in an option, @ is %40, too"
_PACKAGES = {"psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
# What SQLAlchemy passes on to a driver as it is.
_SECRET = {"password", "passwd", "sslpassword"}


def is_ambiguous(url: str) -> bool:
    """Whether an @ stands where others would read another host than SQLAlchemy."""
    rest = url.partition("://")[2]
    place = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, colon, _ = place.partition(":")
    return "@" in rest[len(place) :] or bool(colon and "@" not in user and place.count("@") > 1)


def package_of(err: ModuleNotFoundError) -> str:
    """What to install where the driver of a URL is not."""
    return _PACKAGES.get(err.name or "", err.name or "its driver")


def said(url: str, err: Exception) -> str:
    """What a database said, in one line, without the password.

    Args:
        url: That it was reached by.
        err: Of SQLAlchemy or of the driver.
    """
    from sqlalchemy import make_url

    lines = str(getattr(err, "orig", None) or err).strip().splitlines()
    told = " ".join(line.strip() for line in lines[:3])
    known = make_url(url)
    options = [known.normalized_query.get(name, ()) for name in _SECRET]
    for secret in filter(None, [known.password, *(one for many in options for one in many)]):
        told = re.sub(rf"(?<!\w){re.escape(str(secret))}(?!\w)", "***", told)
    return told
