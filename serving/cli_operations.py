"""``hypoxia package`` and ``hypoxia doctor``; each parses its options and calls one function."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from features.store import tracking_uri

_store = click.option("--tracking-uri", "uri", metavar="URI", help="MLflow store; default: MLFLOW_TRACKING_URI, else ./mlruns.")
_machine = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


@click.command()
@click.argument("references", metavar="NAME[@ALIAS|:VERSION]...", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to make; default: bentos/NAME-VERSION.")
@click.option("--image", metavar="TAG", help="Build a container image with this tag too; needs a Docker engine.")
@_store
@_machine
def package(references: tuple[str, ...], output: Path | None, image: str | None, uri: str | None, as_json: bool) -> None:
    """Make a Bento of registered models: a folder that serves them anywhere, without a registry.

    It holds the verified bundles, the public keys that they are verified with at every start, the code that serves, and the
    versions of all that it needs; nothing that trains. Serve it with the command that is printed.
    """
    from features.bundle import RESEARCH_USE_ONLY
    from serving.packaging import package as make

    made = make(references, tracking_uri(uri), output, image)
    if as_json:
        found = [{"name": name, "version": version} for name, version in made.models]
        click.echo(json.dumps({"folder": str(made.folder), "models": found, "image": made.image}))
    listed = ", ".join(f"{name}:{version}" for name, version in made.models)
    # BentoML loses a relative path; and by itself it would listen on every address.
    command = f"bentoml serve {made.folder.absolute()} --host 127.0.0.1"
    click.echo(f"{listed} packaged in {made.folder}; serve it with\n  {command}\n{RESEARCH_USE_ONLY}", err=True)


@click.command()
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535), help="Port that is to be served on.")
@_store
@_machine
def doctor(port: int, uri: str | None, as_json: bool) -> None:
    """Check installation, store, keys, models, port, disk and clock, and say what to do about what is wrong.

    Changes nothing. Exit code: 0 if nothing failed (warnings are none), 3 if something did.
    """
    from serving.doctor import examine

    findings = examine(tracking_uri(uri), port)
    failed = [finding for finding in findings if finding.state == "fail"]
    if as_json:
        click.echo(json.dumps({"healthy": not failed, "findings": [finding.model_dump() for finding in findings]}))
    else:
        for finding in findings:
            click.echo(str(finding))
    sys.exit(3 if failed else 0)
