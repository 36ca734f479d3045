"""What every command of `shopctl` stands on: which shop, who asks, and how the answer is shown."""

import getpass
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from deploy import screen
from deploy.client import ClientError, Json, Refused, Role, ShopClient, Who
from deploy.stack import Stack, StackError, StackSettings, read_settings


def ascii_text(value: str | None) -> str | None:
    """What goes into a header. Wrong use where it cannot."""
    if value is not None and not (value and value.isascii() and value.isprintable() and value == value.strip()):
        raise typer.BadParameter("It must be printable ASCII text without spaces around it.")
    return value


COMMON = {
    "as_": Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="In whose name; else your login name. Not together with a token."),
    ],
    "as_json": Annotated[
        bool, typer.Option("--json", help="The API's JSON as it is; a problem on the standard error.")
    ],
    "api": Annotated[
        str | None,
        typer.Option(metavar="URL", envvar="STREET12_API_URL", help="The shop's API; else the one on this machine."),
    ],
    "token": Annotated[
        str | None,
        typer.Option(
            metavar="JWT",
            envvar="STREET12_TOKEN",
            callback=ascii_text,
            help="The token to call with, whatever the role.",
        ),
    ],
}


@dataclass(frozen=True)
class Desk:
    """One command's way to the shop, and to the person who gave it."""

    shop: ShopClient
    asked: str | None
    """What --as says."""
    has_token: bool
    as_json: bool

    @property
    def name(self) -> str:
        """In whose name a token is signed."""
        return self.asked or _login_name()

    @property
    def customer(self) -> Who:
        return self._as("customer")

    @property
    def operator(self) -> Who:
        return self._as("operator")

    @property
    def carrier(self) -> Who:
        return self._as("carrier")

    @property
    def buyer(self) -> Who:
        """Who sees orders: the customer that --as names, else an operator."""
        return self.customer if self.asked else self.operator

    def show(self, answer: Json, *pictures: RenderableType) -> None:
        """The answer itself for programs, its pictures for people."""
        if self.as_json:
            screen.show_json(answer, sys.stdout)
        else:
            screen.show(sys.stdout, *pictures)

    def say(self, what: str) -> None:
        """A remark beside the answer."""
        screen.show(sys.stderr, screen.printable(what))

    def _as(self, role: Role) -> Who:
        if self.asked and self.has_token:
            raise typer.BadParameter(
                "A token says itself in whose name: leave out --as, or --token and STREET12_TOKEN."
            )
        return Who(self.name, role)


def add_command(app: typer.Typer, act: Callable[..., None]) -> None:
    """Make a command of a function: its parameters after the desk, and those that every command has."""

    def run(as_: str | None, as_json: bool, api: str | None, token: str | None, **own: Any) -> None:
        try:
            shop = ShopClient(api or _api_here(), token=token, language=_language())
            act(Desk(shop, as_, token is not None, as_json), **own)
        except ClientError as error:
            _tell(error, as_json)
            raise typer.Exit(1) from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # Not worth a model of each answer: another server, or another release.
            _tell(ClientError(f"The answer cannot be read ({error!r}): is this the API of the shop?"), as_json)
            raise typer.Exit(1) from None

    parameters = list(inspect.signature(act).parameters.values())[1:]
    parameters += [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=False if name == "as_json" else None, annotation=kind
        )
        for name, kind in COMMON.items()
    ]
    run.__signature__ = inspect.Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command(act.__name__, help=act.__doc__)(run)


def _tell(error: ClientError, as_json: bool) -> None:
    if as_json and isinstance(error, Refused) and error.problem:
        screen.show_json(error.problem, sys.stderr)
        if error.hint:
            screen.show(sys.stderr, screen.printable(error.hint))
    else:
        screen.show(sys.stderr, *screen.error_lines(error))


def _api_here() -> str:
    try:
        return Stack.read(read_settings(StackSettings).data_dir).urls.api
    except StackError as error:
        trouble = ClientError(str(error))
        trouble.hint = "Or say with --api or STREET12_API_URL where the shop is."
        raise trouble from None


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "operator"


def _language() -> str:
    """That of the terminal, where it is one that the shop speaks."""
    wanted = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return "ko" if wanted.startswith("ko") else "en"
