"""Secrets in URLs: passwords, and the signatures and tokens of a query.

Two ways to leave them out. `public_url` gives a URL a name that stays the same when it is signed anew: what a run remembers of it.
`redacted` leaves out of any text whatever may be a secret in the URLs that stand in it: what is said and logged.
"""

import hashlib
import re
from urllib.parse import urlsplit, urlunsplit

_URL = re.compile(r"""\b[A-Za-z][A-Za-z0-9+.-]*:/{1,2}[^\s'"<>`]+""")
_PASSWORD = re.compile(r"(:/{1,2}[^/?#@:]*):[^/?#@]*@")  # one slash: the other was forgotten
_BARE_USER = re.compile(r"^(https?)://[^/?#@]*@", re.IGNORECASE)
_QUERY = re.compile(r"\?[^\s?]*=.*")
_PARAMETER = re.compile(
    r"""([?&](?:X-Amz-|X-Goog-|[\w-]*(?:sig|signature|token|secret|password|credential|api_?key)\b)[\w-]*)=[^&\s'"<>]+""",
    re.IGNORECASE,
)
_TRAILING = ".,:;)]}"

_SIGNING_PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-cos-", "x-ms-", "q-sign-", "q-ak", "q-signature")
_SIGNING = frozenset(
    """sig signature signature-hash sign token access_token id_token auth authorization jwt hmac hdnts key apikey api_key api-key password
    passwd pwd secret client_secret credential credentials expires expiry exp policy key-pair-id awsaccesskeyid googleaccessid
    ossaccesskeyid security-token""".split()  # noqa: SIM905 - a long list of words is read better so
)
_AZURE = frozenset("se sp sv st sr ss srt spr sip skoid sktid skt ske sks skv sdd saoid suoid scid".split())  # noqa: SIM905
_VERSIONS = frozenset({"versionid", "generation", "revision", "rev"})
_MAX_OPEN_CHARS = 20


def has_secret(url: str) -> bool:
    """Whether a URL holds a password, a signature or a token."""
    return "://" in url and (
        _PASSWORD.search(url) is not None or _BARE_USER.match(url) is not None or public_url(url) != url
    )


def public_url(url: str) -> str:
    """A URL without what signs its query; a path as it is. A long value of another parameter is told by its hash: it may be a secret too,
    or say which file is meant."""
    if "://" not in url or "?" not in url or "=" not in url.rpartition("?")[2]:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that are not an address
        return url
    given = [parameter.partition("=") for parameter in parts.query.split("&")]
    names = {name.lower() for name, _, _ in given}
    signing = _SIGNING | _AZURE if "sig" in names else _SIGNING
    kept = [
        name + equals + _value_or_digest(name, value)
        for name, equals, value in given
        if name.lower() not in signing and not name.lower().startswith(_SIGNING_PREFIXES)
    ]
    return urlunsplit(parts._replace(query="&".join(kept)))


def _value_or_digest(name: str, value: str) -> str:
    if len(value) < _MAX_OPEN_CHARS or name.lower() in _VERSIONS:
        return value
    return f"sha256-{hashlib.sha256(value.encode(errors='surrogatepass')).hexdigest()[:12]}"


def redacted(text: str) -> str:
    """The text with `...` in the place of passwords and queries of URLs, and of signatures and tokens in what is left of one."""
    if ":/" in text:
        text = _URL.sub(lambda found: _redacted_url(found[0]), text)
    return _PARAMETER.sub(r"\1=...", text) if "=" in text else text


def _redacted_url(url: str) -> str:
    bare = url.rstrip(_TRAILING)
    shown = _PASSWORD.sub(r"\1:...@", bare)
    shown = _BARE_USER.sub(r"\1://...@", shown) if shown == bare else shown
    return _QUERY.sub("?...", shown) + url[len(bare) :]
