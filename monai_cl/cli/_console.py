"""The console that every verb writes to."""

from rich.console import Console

console = Console(markup=False, highlight=False)  # paths and messages may hold brackets
