"""The command line. Each file of this folder adds the command of its name; errors print as sentences, exit code 2."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Annotated, Any

import typer
import typer.core

from mmalign.cli._later import import_later
from mmalign.core.sentences import errors_as_sentences, stop_as_sentence


class Commands(typer.core.TyperGroup):
    """Commands that Ctrl-C ends with a sentence; Typer would end them without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with stop_as_sentence():
            return super().invoke(ctx)


def tell_version(wanted: bool) -> bool:
    """Print the version and stop, if it is `wanted`; else it is the option's value."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"mmalign {version('mmalign')}")
        raise typer.Exit
    return wanted


def options(
    version: Annotated[
        bool, typer.Option("--version", help="print the version and stop", is_eager=True, callback=tell_version)
    ] = False,
) -> None:
    """Align text, image and audio generators with rewards."""


def application() -> typer.Typer:
    """Return the Typer application with every command of this folder."""
    app = typer.Typer(
        name="mmalign",
        cls=Commands,
        help="Align text, image and audio generators with rewards.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(options)
    package = importlib.import_module("mmalign.cli")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name != "main" and not module.name.startswith("_"):
            importlib.import_module(f"mmalign.cli.{module.name}").register(app)
    return app


def main() -> None:
    """Run the command line; an error raised on purpose is a sentence, not a traceback."""
    import_later("torch")
    with errors_as_sentences():
        application()()
