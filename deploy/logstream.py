"""One tagged, coloured stream of what all processes of a shop say."""

import os

from rich.console import Console, RenderableType

_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red", "bright_cyan")


class LogStream:
    """Writes lines and tables to a console. A reader that goes away stops nothing."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._prefixes: dict[str, str] = {}

    def __call__(self, tag: str, line: str) -> None:
        """Write one line, its tag before it."""
        if tag not in self._prefixes:
            colour = "bold" if tag == "shop" else _COLOURS[len(self._prefixes) % len(_COLOURS)]
            with self._console.capture() as styled:
                self._console.print(f"{tag:<9} | ", style=colour, end="", highlight=False)
            self._prefixes[tag] = styled.get()
        self._write(f"{self._prefixes[tag]}{line}\n")

    def show(self, what: RenderableType) -> None:
        """Write a table or the like, as it is."""
        with self._console.capture() as rendered:
            self._console.print(what, soft_wrap=True)
        self._write(rendered.get())

    def _write(self, text: str) -> None:
        try:
            self._console.file.write(text)
            self._console.file.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._console.file.fileno())
