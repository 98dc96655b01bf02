"""Signatures of model bundles (OpenSSF model signing) with a key of this machine, made at first use.

A bundle is loaded only if someone whose public key is in ``trusted/`` signed it. To trust another machine, copy its
``trusted/*.pub`` there.

References
----------
OpenSSF Model Signing specification 1.0; files are hashed with SHA-256, the manifest is signed with ECDSA on P-256.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from features.errors import BundleError, InputError

if TYPE_CHECKING:
    from model_signing.hashing import Config as HashingConfig

SIGNATURE = "signature.json"
PRIVATE_KEY = "signing.pem"
TRUSTED = "trusted"


class SignatureError(BundleError):
    """A bundle is not signed, or not by a key that is trusted here, or was changed after it was signed."""


def keys_folder() -> Path:
    """Folder of the keys: ``HYPOXIA_KEYS``, else ``hypoxia/keys`` among the user's settings."""
    given = os.environ.get("HYPOXIA_KEYS")
    settings = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(given) if given else Path(settings) / "hypoxia" / "keys"


def sign(folder: Path) -> str:
    """Sign every file of a folder; returns the fingerprint of the key, which is made if there is none.

    Raises
    ------
    InputError
        The folder of the keys cannot be written, or the key cannot be read.
    """
    from model_signing import signing

    private = keys_folder() / PRIVATE_KEY
    if not private.exists():
        _make_key(private)
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=private)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as cause:
        raise InputError(f"The signing key {private} cannot be read; restore it, or remove it to have a new one made.") from cause
    config.set_hashing_config(_every_file(folder)).sign(folder, folder / SIGNATURE)
    return fingerprint(keys_folder() / TRUSTED / f"{_name_of(private)}.pub")


def verify(folder: Path) -> str:
    """Check that a folder is, file by file, what a trusted key signed; returns the fingerprint of that key.

    Raises
    ------
    SignatureError
    """
    from model_signing import verifying

    if not (folder / SIGNATURE).is_file():
        raise SignatureError("The model is not signed; it was not loaded. Train or register it again.")
    keys = trusted_keys()
    for key in keys:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)  # type: ignore[no-untyped-call]
        config.set_hashing_config(_every_file(folder))
        try:
            config.verify(folder, folder / SIGNATURE)
        except Exception:  # noqa: BLE001, S112 - whatever a forged signature makes the library raise, it did not verify
            continue
        return fingerprint(key)
    raise SignatureError(
        f"The model's signature is of none of the {len(keys)} keys trusted here, or the model was changed after it was signed; "
        f"it was not loaded. If it comes from another machine, copy that machine's public key (trusted/*.pub) into "
        f"{keys_folder() / TRUSTED}."
    )


def trusted_keys() -> Sequence[Path]:
    """Public keys whose signatures count."""
    return sorted((keys_folder() / TRUSTED).glob("*.pub"))


def fingerprint(public_key: Path) -> str:
    """SHA-256 of a public key as it lies in its file, in hexadecimal."""
    return hashlib.sha256(public_key.read_bytes()).hexdigest()


def _every_file(folder: Path) -> HashingConfig:
    """The library leaves out git's files unless told; an extra file is extra, whatever its name."""
    from model_signing import hashing

    config = hashing.Config()  # type: ignore[no-untyped-call]
    return config.set_ignored_paths(paths=[(folder / SIGNATURE).absolute()], ignore_git_paths=False)


def _make_key(private: Path) -> None:
    """Make a key pair; of two that start at once, one makes it and the other takes that."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from filelock import FileLock

    try:
        (private.parent / TRUSTED).mkdir(parents=True, exist_ok=True)
        with FileLock(private.with_suffix(".lock")):
            if private.exists():
                return
            pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            stage = private.with_suffix(".new")
            stage.unlink(missing_ok=True)
            with os.fdopen(os.open(stage, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(pem)
            (private.parent / TRUSTED / f"{_name_of(stage)}.pub").write_bytes(_public(stage))
            stage.rename(private)
    except OSError as cause:
        raise InputError(
            f"No signing key can be made in {private.parent} ({cause.strerror}); name a folder that is yours with HYPOXIA_KEYS."
        ) from cause


def _public(private: Path) -> bytes:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(private.read_bytes(), None).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _name_of(private: Path) -> str:
    return hashlib.sha256(_public(private)).hexdigest()[:16]
