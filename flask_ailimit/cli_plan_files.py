"""``flask ailimit plans`` and ``flask ailimit import``: what can be done with plan files before there is an app."""

import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import click
from flask.cli import AppGroup, with_appcontext

from .engine import ConfigurationError
from .limits.plans.importing.imported import plan_file_of
from .limits.plans.in_words import plans_in_words
from .limits.plans.plan import Plans
from .limits.plans.plan_file import read_plans

_STDIN = "-"


class _PlansOrFile(AppGroup):
    """A group of commands. What is none of them is the name of a file, whose plans are printed."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in self.commands:
            return super().resolve_command(ctx, args)
        return "", _print_file, args


def plans_group(print_those_of_app: Callable[[], None], check_those_of_app: Callable[[], None]) -> click.Group:
    """The commands about plans.

    Args:
        print_those_of_app: Prints the plans of the current app.
        check_those_of_app: Says that the plans of the current app are right. An app whose plans are wrong doesn't load.
    """

    @click.group("plans", cls=_PlansOrFile, invoke_without_command=True, subcommand_metavar="[FILE | check | schema]")
    @click.pass_context
    def plans(ctx: click.Context) -> None:
        """Print the plans of the app, or say what is wrong with them.

        With FILE: those of a plan file, without the app. A file that is called like a command is ./check.
        """
        if ctx.invoked_subcommand is None:
            with_appcontext(print_those_of_app)()

    @plans.command(with_appcontext=False)
    @click.argument("file", nargs=-1, metavar="[FILE]...", type=click.Path())
    @click.pass_context
    def check(ctx: click.Context, file: tuple[str, ...]) -> None:
        """Say what is wrong with plan files, with the status 1. Without FILE: with the plans of the app."""
        if not file:
            with_appcontext(check_those_of_app)()
        wrong = [each for each in file if not _is_right(each)]
        if wrong:
            ctx.exit(1)

    @plans.command(with_appcontext=False)
    def schema() -> None:
        """Print the JSON schema of plan files, for editors."""
        shipped = files("flask_ailimit.limits.plans").joinpath("plans.schema.json")
        click.echo(shipped.read_text(encoding="utf-8"), nl=False)

    return plans


def in_one_line(plans: Plans) -> str:
    """That plans could be read, and how they are called."""
    several = f"{len(plans.plans)} plans" if len(plans.plans) > 1 else "1 plan"
    return f"{plans.source}: nothing is wrong. It has {several}: {', '.join(plans.plans)}."


@click.command("import")
@click.argument("file", default=_STDIN, type=click.Path(allow_dash=True))
@click.option("--plan", metavar="NAME", help="What a plan is to be called that has no name in FILE.")
def import_limits(file: str, plan: str | None) -> None:
    """Print a plan file with the limits of FILE: JSON of LiteLLM, OpenAI or Anthropic, as their APIs return it.

    Without FILE, or if it is -, it is read from the standard input. Comments say what could not be carried over, and a
    warning says if FILE is only one page of several, or a plan is left without a limit.
    """
    if file == _STDIN:
        source, data = "standard input", sys.stdin.buffer.read()
    else:
        path = Path(file)
        source, data = path.name, _read(path)
    click.echo(plan_file_of(source, data, plan, warn=_warn), nl=False)


def _warn(sentence: str) -> None:
    click.echo(f"Warning: {sentence}", err=True)


@click.command()
@click.argument("file", type=click.Path())
def _print_file(file: str) -> None:
    """Print the plans of FILE."""
    click.echo("\n".join(plans_in_words(_plans_of(file))))


def _is_right(file: str) -> bool:
    """Whether a plan file can be read; it is said."""
    try:
        found = _plans_of(file)
    except ConfigurationError as error:
        click.echo(f"Error: {error}", err=True)
        return False
    click.echo(in_one_line(found))
    return True


def _plans_of(file: str) -> Plans:
    return read_plans(file, "", "fixed-window")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror or type(error).__name__}.") from error
