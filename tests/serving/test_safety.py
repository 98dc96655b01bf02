"""What ``hypoxia serve`` refuses to do, before anything is started."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from features.errors import InputError
from features.ledger import Ledger
from serving.safety import Safety, allowed_address

TOKEN = "clinic-token-0123456789abcdefghijkl"
OTHERS = ["0.0.0.0", "192.168.1.10", "::", "10.0.0.1", "2001:db8::1"]


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.touch(0o600)
    path.write_text(f"clinic:predict:{TOKEN}")
    return path


@pytest.fixture(scope="module")
def key_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run([*make, "-subj", "/CN=localhost", "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


@pytest.mark.parametrize(("host", "address"), [("localhost", "127.0.0.1"), ("127.0.0.2", "127.0.0.2"), ("::1", "::1")])
def test_this_machines_addresses_need_nothing(host: str, address: str) -> None:
    assert Safety().require(host, {}) == address


@pytest.mark.parametrize("host", OTHERS)
def test_an_address_that_others_reach_needs_a_token_and_encryption(
    host: str, token_file: Path, key_pair: tuple[Path, Path]
) -> None:
    certificate, key = key_pair
    with pytest.raises(InputError, match="without a token"):
        Safety().require(host, {})
    with pytest.raises(InputError, match="without a token"):
        Safety(behind_proxy=True).require(host, {})
    with pytest.raises(InputError, match="without a token"):
        Safety(tls_cert=certificate, tls_key=key).require(host, {})
    with pytest.raises(InputError, match="unencrypted"):
        Safety(token_file=token_file).require(host, {})
    with pytest.raises(InputError, match="unencrypted"):
        Safety().require(host, {"HYPOXIA_TOKEN": TOKEN})
    assert Safety(token_file=token_file, behind_proxy=True).require(host, {}) == host
    assert Safety(behind_proxy=True).require(host, {"HYPOXIA_TOKEN": TOKEN}) == host
    assert Safety(tls_cert=certificate, tls_key=key, token_file=token_file).require(host, {}) == host


@pytest.mark.parametrize("host", ["example.org", "", "127.0.0.1:3000", "300.1.1.1"])
def test_what_is_no_address_is_refused(host: str) -> None:
    with pytest.raises(InputError, match="no address"):
        allowed_address(host, behind_proxy=True, has_tls=True, has_token=True)


def test_a_certificate_needs_its_own_key(key_pair: tuple[Path, Path], tmp_path: Path) -> None:
    certificate, key = key_pair
    with pytest.raises(InputError, match="both --tls-cert and --tls-key"):
        Safety(tls_cert=certificate).require("127.0.0.1", {})
    with pytest.raises(InputError, match="not a pair"):
        Safety(tls_cert=key, tls_key=certificate).require("127.0.0.1", {})
    with pytest.raises(InputError, match="No such file"):
        Safety(tls_cert=certificate, tls_key=tmp_path / "other").require("127.0.0.1", {})
    arguments = Safety(tls_cert=certificate, tls_key=key).arguments()
    assert arguments == ["--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)]


def test_a_bad_token_stops_the_server_on_any_address(token_file: Path) -> None:
    token_file.chmod(0o604)
    with pytest.raises(InputError, match="Every user"):
        Safety(token_file=token_file).require("127.0.0.1", {})
    with pytest.raises(InputError, match="no secret"):
        Safety().require("127.0.0.1", {"HYPOXIA_ADMIN_TOKEN": "short"})


def test_the_log_of_requests_lies_beside_the_store_and_is_tried_first(tmp_path: Path) -> None:
    given = Safety(rate_limit=7).environment(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert given["HYPOXIA_AUDIT_LOG"] == str(tmp_path / "requests.jsonl")
    assert given["HYPOXIA_RATE_LIMIT"] == "7"
    assert Ledger(tmp_path / "requests.jsonl").verify() == 1
    assert Safety(audit_log="off").environment("http://127.0.0.1:5000")["HYPOXIA_AUDIT_LOG"] == "off"


def test_a_log_that_cannot_be_written_stops_the_server(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for where in (tmp_path / "file" / "requests.jsonl", tmp_path, Path("/dev/full")):
        with pytest.raises(InputError, match="--audit-log off"):
            Safety(audit_log=str(where)).environment("sqlite:///x.db")
