"""Tokens: what counts as one, what is kept of it, and who is recognised by it."""

from __future__ import annotations

import base64
import hmac
from pathlib import Path

import pytest
from click.testing import CliRunner

from features.errors import InputError
from serving import cli, tokens
from serving.tokens import Token, Tokens, new_token, read_token_file, tokens_from_environment

CLINIC = "clinic-token-0123456789abcdefghijkl"
OPERATOR = "operator-token-0123456789abcdefghij"


def basic(user: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


@pytest.fixture
def two() -> Tokens:
    return Tokens((Token.of("clinic", ("predict",), CLINIC), Token.of("operator", ("predict", "admin"), OPERATOR)))


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.touch(0o600)
    return path


@pytest.mark.parametrize(
    "header", [f"Bearer {CLINIC}".encode(), f"bearer  {CLINIC}".encode(), basic("anyone", CLINIC), basic("", CLINIC)]
)
def test_a_token_is_taken_as_bearer_and_as_the_password_of_basic(two: Tokens, header: bytes) -> None:
    owner = two.owner(header)
    assert owner is not None
    assert (owner.name, owner.scopes) == ("clinic", {"predict"})


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        CLINIC.encode(),
        f"Bearer {CLINIC}x".encode(),
        f"Bearer {CLINIC[:-1]}".encode(),
        f"Digest {CLINIC}".encode(),
        basic(CLINIC, ""),
        b"Basic ???",
        b"Basic " + b"\xff" * 50,
        b"Bearer \xff\xfe",
        b"Bearer " + b"x" * 1_000_000,
    ],
)
def test_nothing_else_is_taken(two: Tokens, header: bytes | None) -> None:
    assert two.owner(header) is None


def test_every_token_is_compared_in_constant_time_even_after_one_matched(two: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bool] = []

    def counted(one: bytes, other: bytes) -> bool:
        compared.append(hmac.compare_digest(one, other))
        return compared[-1]

    monkeypatch.setattr(tokens, "hmac", type("Counted", (), {"compare_digest": staticmethod(counted)}))
    two.owner(f"Bearer {CLINIC}".encode())
    assert compared == [True, False]


@pytest.mark.parametrize(
    "text", ["", "short", "x" * 31, "a" * 64, "abcabcabcabcabcabcabcabcabcabcabcabc", CLINIC + " x", CLINIC + "é"]
)
def test_what_is_no_secret_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(InputError, match="hypoxia token") as refused:
        Token.of("clinic", ("predict",), text)
    assert not text or text not in str(refused.value)


def test_a_token_of_32_characters_is_long_enough() -> None:
    assert Token.of("clinic", ("predict",), CLINIC[:32]).name == "clinic"


def test_nothing_shows_a_token(two: Tokens) -> None:
    assert CLINIC not in repr(two)
    assert CLINIC not in two.accepted[0].line()
    assert CLINIC.encode() not in two.accepted[0].digest


def test_a_file_holds_plain_and_hashed_tokens_and_comments(token_file: Path) -> None:
    text, made = new_token("operator", ("admin", "predict"))
    token_file.write_text(f"# who may ask\n\nclinic:predict:{CLINIC}\n{made.line()}\n")
    read = Tokens(read_token_file(token_file))
    assert [(token.name, sorted(token.scopes)) for token in read.accepted] == [
        ("clinic", ["predict"]),
        ("operator", ["admin", "predict"]),
    ]
    for given, name in ((CLINIC, "clinic"), (text, "operator")):
        owner = read.owner(b"Bearer " + given.encode())
        assert owner is not None
        assert owner.name == name


@pytest.mark.parametrize(
    "line",
    [
        CLINIC,
        f"clinic:{CLINIC}",
        f"clinic::{CLINIC}",
        f"clinic:read:{CLINIC}",
        f"clinic:predict,read:{CLINIC}",
        f"a name:predict:{CLINIC}",
        "clinic:predict:",
        "clinic:predict:short-canary",
        "clinic:predict:sha256$00$11",
        f"clinic:predict:sha256${'0' * 32}",
        f"clinic:predict:sha256${'0' * 32}$canary",
    ],
)
def test_a_line_of_another_form_is_refused_without_being_repeated(token_file: Path, line: str) -> None:
    token_file.write_text(line)
    with pytest.raises(InputError) as refused:
        read_token_file(token_file)
    assert CLINIC not in str(refused.value)
    assert "canary" not in str(refused.value)


def test_a_file_that_others_can_read_is_refused(token_file: Path) -> None:
    token_file.write_text(f"clinic:predict:{CLINIC}")
    token_file.chmod(0o644)
    with pytest.raises(InputError, match="Every user"):
        read_token_file(token_file)


def test_a_file_that_is_not_there_or_holds_no_token_is_refused(token_file: Path) -> None:
    with pytest.raises(InputError, match="holds no token"):
        read_token_file(token_file)
    with pytest.raises(InputError, match="cannot be read"):
        read_token_file(token_file.with_name("other"))
    token_file.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        read_token_file(token_file)


def test_the_environment_gives_a_file_and_two_tokens(token_file: Path) -> None:
    token_file.write_text(f"clinic:predict:{CLINIC}")
    given = {"HYPOXIA_TOKEN_FILE": str(token_file), "HYPOXIA_TOKEN": CLINIC[::-1], "HYPOXIA_ADMIN_TOKEN": OPERATOR}
    assert {token.name: set(token.scopes) for token in tokens_from_environment(given).accepted} == {
        "clinic": {"predict"},
        "environment": {"predict"},
        "environment-admin": {"predict", "admin"},
    }
    assert not tokens_from_environment({})


def test_two_tokens_of_one_name_are_refused(two: Tokens) -> None:
    with pytest.raises(InputError, match="'clinic'"):
        Tokens((*two.accepted, Token.of("clinic", ("admin",), OPERATOR)))


def test_the_command_prints_lines_that_a_server_takes(token_file: Path) -> None:
    plain = CliRunner().invoke(cli.token, ["clinic"], catch_exceptions=False)
    hashed = CliRunner().invoke(cli.token, ["operator", "--scope", "admin", "--hashed"], catch_exceptions=False)
    token_file.write_text(plain.stdout + hashed.stdout)
    read = Tokens(read_token_file(token_file))
    shown = [plain.stdout.strip().rpartition(":")[2], hashed.stderr.strip().rpartition(" ")[2]]
    owners = [read.owner(f"Bearer {text}".encode()) for text in shown]
    assert [owner and owner.name for owner in owners] == ["clinic", "operator"]
    assert shown[1] not in hashed.stdout
    assert len({*shown}) == 2
