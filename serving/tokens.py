"""Who may ask: tokens with a name and scopes, kept as digests and compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
import secrets
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Literal, get_args

from features.errors import InputError

Scope = Literal["predict", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

TOKEN_FILE = "HYPOXIA_TOKEN_FILE"  # noqa: S105 - the variable's name
TOKEN = "HYPOXIA_TOKEN"  # noqa: S105
ADMIN_TOKEN = "HYPOXIA_ADMIN_TOKEN"  # noqa: S105
SHORTEST = 32
FEWEST_CHARACTERS = 10
LONGEST_HEADER = 1024
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TOKEN = re.compile(r"[!-~]+")
_WAY_OUT = "write NAME:SCOPE[,SCOPE]:TOKEN, as `hypoxia token NAME` prints it (scopes: predict, admin)"


@dataclass(frozen=True)
class Token:
    """A token's name and scopes; of its text, a salted digest (it is random, so that a slow digest would add nothing)."""

    name: str
    scopes: frozenset[Scope]
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, name: str, scopes: Sequence[Scope], text: str) -> Token:
        """Token from its text.

        Raises
        ------
        InputError
            The text is too short or too plain to be a secret. It is not repeated.
        """
        if len(text) < SHORTEST or len(set(text)) < FEWEST_CHARACTERS or not _TOKEN.fullmatch(text):
            raise InputError(
                f"The token {name!r} is no secret: it needs at least {SHORTEST} characters of ASCII, {FEWEST_CHARACTERS} of them "
                "different; make one with `hypoxia token`."
            )
        salt = secrets.token_bytes(16)
        return cls(name, frozenset(scopes), salt, _digest(salt, text.encode()))

    def line(self) -> str:
        """Line of a token file from which the token cannot be read back."""
        return f"{self.name}:{','.join(sorted(self.scopes))}:sha256${self.salt.hex()}${self.digest.hex()}"


@dataclass(frozen=True)
class Tokens:
    """All tokens that are accepted; none at all means that nobody is asked for one.

    Examples
    --------
    >>> text = "a-token-of-32-characters-0123456"
    >>> tokens = Tokens((Token.of("clinic", ("predict",), text),))
    >>> tokens.owner(b"Bearer " + text.encode()).name
    'clinic'
    >>> tokens.owner(b"Bearer another") is None
    True
    """

    accepted: tuple[Token, ...] = ()

    def __post_init__(self) -> None:
        names = [token.name for token in self.accepted]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"Two tokens are called {twice!r}; a name in the audit log must mean one of them.")

    def __bool__(self) -> bool:
        return bool(self.accepted)

    def owner(self, authorization: bytes | None) -> Token | None:
        """Token that an ``Authorization`` header carries, as Bearer or as the password of Basic, if it is one of ours.

        Every token is compared, in constant time and without stopping at the one that matches.
        """
        given = _carried(authorization) if authorization else b""
        found = None
        for token in self.accepted:
            if hmac.compare_digest(_digest(token.salt, given), token.digest):
                found = token
        return found


def tokens_from_environment(environment: Mapping[str, str] | None = None) -> Tokens:
    """Tokens of the file that ``HYPOXIA_TOKEN_FILE`` names, of ``HYPOXIA_TOKEN`` and of ``HYPOXIA_ADMIN_TOKEN``."""
    given = os.environ if environment is None else environment
    accepted = list(read_token_file(Path(given[TOKEN_FILE]))) if given.get(TOKEN_FILE) else []
    if given.get(TOKEN):
        accepted.append(Token.of("environment", ("predict",), given[TOKEN]))
    if given.get(ADMIN_TOKEN):
        accepted.append(Token.of("environment-admin", ("predict", "admin"), given[ADMIN_TOKEN]))
    return Tokens(tuple(accepted))


def read_token_file(path: Path) -> tuple[Token, ...]:
    """Tokens of a file: one ``NAME:SCOPE[,SCOPE]:TOKEN`` a line, ``#`` before a comment.

    Raises
    ------
    InputError
        There is no such file, others can read it, or a line is not of that form. No line is repeated.
    """
    try:
        if path.stat().st_mode & stat.S_IRWXO:
            raise InputError(f"Every user of this machine can read {path}; `chmod 600 {path}`, and make new tokens.")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise InputError(f"The token file {path} cannot be read ({_why(cause)}); name a text file that is yours.") from cause
    texts = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    tokens = tuple(_token_of_line(line, f"{path}, line {number}") for number, line in texts if line and not line.startswith("#"))
    if not tokens:
        raise InputError(f"{path} holds no token; {_WAY_OUT}.")
    return tokens


def new_token(name: str, scopes: Sequence[Scope]) -> tuple[str, Token]:
    """A new random token: its text, and what a server keeps of it."""
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name for a token; use up to 64 letters, digits, '.', '_' and '-'.")
    text = secrets.token_urlsafe(32)
    return text, Token.of(name, scopes, text)


def _token_of_line(line: str, where: str) -> Token:
    name, scopes, text = [*(part.strip() for part in line.split(":", 2)), "", ""][:3]
    chosen = tuple(scope for scope in SCOPES if scope in scopes.split(","))
    if not _NAME.fullmatch(name) or not chosen or len(chosen) != len(scopes.split(",")) or not text:
        raise InputError(f"{where} is not a token; {_WAY_OUT}.")
    if not text.startswith("sha256$"):
        return Token.of(name, chosen, text)
    try:
        salt, digest = (bytes.fromhex(part) for part in text.split("$")[1:])
    except ValueError as cause:
        raise InputError(f"{where} is not a digest of a token; print a new line with `hypoxia token {name} --hashed`.") from cause
    if len(salt) < 8 or len(digest) != sha256().digest_size:
        raise InputError(f"{where} is not a digest of a token; print a new line with `hypoxia token {name} --hashed`.")
    return Token(name, frozenset(chosen), salt, digest)


def _carried(authorization: bytes) -> bytes:
    scheme, _, rest = authorization[:LONGEST_HEADER].partition(b" ")
    if scheme.lower() == b"bearer":
        return rest.strip()
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""


def _digest(salt: bytes, text: bytes) -> bytes:
    return sha256(salt + text).digest()


def _why(cause: OSError | UnicodeDecodeError) -> str:
    return (cause.strerror or "unreadable") if isinstance(cause, OSError) else "not UTF-8"
