"""The console command ``hypoxia``: one table of commands, each imported only when it is called."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from features.errors import HypoxiaError, InputError

# name: (where it lives, one line of help). Listing them here keeps `hypoxia --help` fast, and lets training and serving
# stay strangers: neither imports the other.
COMMANDS = {
    "manifest": ("features.imaging.cli_manifest:manifest", "Draft the list of images and masks in a folder."),
    "profiles": ("features.imaging.cli_profiles:profiles", "List what can be measured in images, with names and hashes."),
    "extract": ("training.cli_extract:extract", "Measure features in images: a manifest or a study becomes tables."),
    "perfusion": ("features.imaging.cli_perfusion:perfusion", "Fit contrast series: Brix maps and the hypoxic fraction."),
    "heterogeneity": (
        "training.cli_heterogeneity:heterogeneity",
        "Tell how far one biopsy speaks for its tumour: variance, and virtual biopsies.",
    ),
    "genes": ("features.cli_genes:genes", "Tell what the names of genes in a table mean, and which cannot be told."),
    "fetch": ("features.cli_fetch:fetch", "Download a public expression data set, with its checksum."),
    "simulate": ("training.cli_simulate:simulate", "Write a cohort whose truth is known, for a composite or for profiles."),
    "robustness": ("training.cli_robustness:robustness", "Tell which features come out the same when measured again."),
    "check": ("training.cli:check", "Read a study and its data, report what is there and what looks wrong. Trains nothing."),
    "train": ("training.cli:train", "Select, search, judge, explain, record and register: a study becomes a model."),
    "correlate": (
        "training.molecular.cli:correlate",
        "Relate groups of patients (clusters, hypoxia classes) to genes, mutations and proteins.",
    ),
    "adapt": ("training.cli_adapt:adapt", "Let a model learn one more site from unlabelled samples, as a new version."),
    "runs": ("training.cli:runs", "List the runs that are recorded."),
    "models": ("training.cli:models", "List the models that are registered."),
    "compare": ("training.cli_registry:compare", "Put models side by side, with paired differences on the same patients."),
    "promote": ("training.cli_promotion:promote", "Give a version an alias, if it passes the gate."),
    "rollback": ("training.cli_promotion:rollback", "Give an alias back to the version that held it before."),
    "audit": ("training.cli_promotion:audit", "List who promoted what, and check that the log was not changed."),
    "validate": ("training.cli_promotion:validate", "Judge a frozen model on a labelled table from elsewhere."),
    "schema": ("training.cli:schema", "Print the JSON schema of a study file."),
    "predict": ("serving.cli:predict", "Score a table offline with a registered model."),
    "serve": ("serving.cli:serve", "Serve a registered model over HTTP on this machine."),
    "package": ("serving.cli_operations:package", "Make a Bento: a folder that serves models anywhere, without a registry."),
    "doctor": ("serving.cli_operations:doctor", "Check installation, store, keys, models, port, disk and clock."),
    "token": ("serving.cli:token", "Print a new random token, for who may ask the server."),
}

EXTRAS = {"features": "radiomics", "training": "training", "serving": "serving"}


class LazyGroup(click.Group):
    """A group of commands that are imported when they are called, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name][0].split(":")
        try:
            command: click.Command = getattr(import_module(module), attribute)
        except ModuleNotFoundError as cause:
            extra = EXTRAS.get(module.split(".")[0], module.split(".")[0])
            raise click.UsageError(
                f"`hypoxia {name}` needs {cause.name}, which is not installed; pip install 'hypoxia-biomarkers[{extra}]'."
            ) from cause
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="hypoxia-biomarkers")
def hypoxia() -> None:
    """Learn, judge and serve tumour-hypoxia biomarkers. Research use only.

    \b
    A first session:
      hypoxia check configs/demo.yaml          look at the data, train nothing
      hypoxia train configs/demo.yaml          train, judge, record, register
      hypoxia models                           see what is registered
      hypoxia predict --model NAME table.csv   score a table
      hypoxia serve --model NAME               serve it on 127.0.0.1:3000
    """


def main() -> None:
    """Run the command line; a user's mistake is one sentence on stderr and exit code 2, anything else a traceback."""
    try:
        hypoxia()
    except InputError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except HypoxiaError as error:
        click.echo(f"Refused: {error}", err=True)
        sys.exit(3)


if __name__ == "__main__":
    main()
