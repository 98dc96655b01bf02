"""How ``hypoxia serve`` is made safe: its options for who may ask, over what, how often, and where that is written down."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click

from features.errors import InputError
from features.store import state_folder
from serving.tokens import TOKEN_FILE, tokens_from_environment

AUDIT_LOG = "HYPOXIA_AUDIT_LOG"
BEHIND_PROXY = "HYPOXIA_BEHIND_PROXY"
RATE_LIMIT = "HYPOXIA_RATE_LIMIT"
TLS = "HYPOXIA_TLS"
NO_AUDIT = "off"


@dataclass(frozen=True)
class Safety:
    """Options of a server that concern its safety, as given."""

    behind_proxy: bool = False
    token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    rate_limit: float | None = None
    audit_log: str | None = None

    def require(self, host: str, environment: dict[str, str]) -> str:
        """Check what was given; returns the address to listen on.

        Raises
        ------
        InputError
            An address of that kind needs more than was given, or a file cannot be used.
        """
        has_token = bool(tokens_from_environment(environment | self._own_variables()))
        address = allowed_address(host, behind_proxy=self.behind_proxy, has_tls=self.has_tls(), has_token=has_token)
        if self.has_tls():
            self._require_key_pair()
        return address

    def has_tls(self) -> bool:
        """Whether the server itself encrypts."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InputError("Encryption needs both --tls-cert and --tls-key; give the other one too.")
        return self.tls_cert is not None

    def environment(self, uri: str) -> dict[str, str]:
        """Variables that the server reads; its log of requests is tried first.

        Raises
        ------
        InputError
            The log of requests cannot be written.
        """
        log = self.audit_log or str(state_folder(uri) / "requests.jsonl")
        if log != NO_AUDIT:
            log = _writable(Path(log).absolute())
        return self._own_variables() | {AUDIT_LOG: log, TLS: str(self.has_tls()), BEHIND_PROXY: str(self.behind_proxy)}

    def arguments(self) -> list[str]:
        """Arguments of ``bentoml serve``."""
        if self.tls_cert is None or self.tls_key is None:
            return []
        return ["--ssl-certfile", str(self.tls_cert.absolute()), "--ssl-keyfile", str(self.tls_key.absolute())]

    def _own_variables(self) -> dict[str, str]:
        given = {} if self.token_file is None else {TOKEN_FILE: str(self.token_file.absolute())}
        return given if self.rate_limit is None else given | {RATE_LIMIT: str(self.rate_limit)}

    def _require_key_pair(self) -> None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(str(self.tls_cert), str(self.tls_key), password="")
        except (OSError, ValueError) as cause:  # an SSLError is an OSError
            why = cause.strerror if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) else "not a pair in PEM"
            raise InputError(
                f"{self.tls_cert} and {self.tls_key} cannot be used ({why}); give a certificate in PEM and its key, without a "
                "password."
            ) from cause


def safety_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `Safety`, for a click command that takes them under these names."""
    path = click.Path(path_type=Path)
    for option in reversed(
        (
            click.option(
                "--behind-proxy",
                is_flag=True,
                envvar=BEHIND_PROXY,
                help="Something in front (a proxy, a container's port) encrypts.",
            ),
            click.option(
                "--token-file",
                type=path,
                envvar=TOKEN_FILE,
                help="Who may ask: lines NAME:SCOPE[,SCOPE]:TOKEN (`hypoxia token`).",
            ),
            click.option("--tls-cert", type=path, envvar="HYPOXIA_TLS_CERT", help="Certificate (PEM), to encrypt."),
            click.option("--tls-key", type=path, envvar="HYPOXIA_TLS_KEY", help="Its key (PEM)."),
            click.option(
                "--rate-limit",
                type=click.FloatRange(min=0),
                envvar=RATE_LIMIT,
                help="Requests a second of one token; default 2000, and no limit where no token is needed.",
            ),
            click.option(
                "--audit-log",
                metavar="FILE|off",
                envvar=AUDIT_LOG,
                help="Log of requests, without values; default: requests.jsonl beside the store.",
            ),
        )
    ):
        command = option(command)
    return command


def allowed_address(host: str, *, behind_proxy: bool = False, has_tls: bool = False, has_token: bool = False) -> str:
    """Address to listen on, as a number: one of this machine only, unless a token is asked for and something encrypts.

    Raises
    ------
    InputError
        The host is no address, or other machines could reach it unencrypted or without a token.
    """
    try:
        address = ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError as cause:
        raise InputError(f"{host!r} is no address to listen on; give a number such as 127.0.0.1.") from cause
    if not address.is_loopback and not has_token:
        raise InputError(
            f"Other machines could reach {host} and ask without a token; listen on 127.0.0.1, or make a token (`hypoxia token`) "
            "and give it with --token-file or HYPOXIA_TOKEN."
        )
    if not address.is_loopback and not (has_tls or behind_proxy):
        raise InputError(
            f"Other machines could reach {host} unencrypted; listen on 127.0.0.1, or give --tls-cert and --tls-key, or "
            "--behind-proxy if a proxy encrypts."
        )
    return str(address)


def _writable(path: Path) -> str:
    from serving.request_audit import RequestAudit

    log = RequestAudit(path)
    try:
        log.check()
    except OSError as cause:
        raise InputError(
            f"The log of requests {path} cannot be written ({cause.strerror or 'not whole'}); name another with --audit-log "
            "FILE, or go without: --audit-log off."
        ) from cause
    finally:
        log.close()
    return str(path)
