"""Messages that know which of their words are quoted, so that names are hidden in the quotes and nowhere else."""

from __future__ import annotations

from collections.abc import Callable


class Quoting(str):
    """A message in words of this package, around quotes: paths, and values of headers.

    Whoever hides names in a message has to leave the other words alone: a folder may be called ``this`` or ``link``,
    and words that vanish from a known message give such a name away.

    Args:
        words: The message, with ``{}`` in the place of each quote. Without quotes it is taken as it is.
        quotes: The quotes; a message among them keeps its own words and quotes.

    Raises:
        ValueError: If the number of quotes is not that of their places.

    Example:
        >>> message = Quoting("same image as {}", "image/a.dcm")
        >>> message
        'same image as image/a.dcm'
        >>> message.with_quotes(lambda quote: quote.replace("image", "[hidden]"))
        'same image as [hidden]/a.dcm'
    """

    parts: tuple[str, ...]  # words and quotes in turn, beginning and ending with words

    def __new__(cls, words: str, *quotes: object) -> Quoting:
        """Keep the parts beside the whole."""
        own = words.split("{}") if quotes else [words]
        if len(own) != len(quotes) + 1:
            raise ValueError(f"a message with {len(own) - 1} places needs as many quotes, got {len(quotes)}: {words}")
        parts = own[:1]
        for quote, following in zip(quotes, own[1:], strict=True):
            inner = quote.parts if isinstance(quote, Quoting) else ("", str(quote), "")
            parts = [*parts[:-1], parts[-1] + inner[0], *inner[1:]]
            parts[-1] += following
        made = super().__new__(cls, "".join(parts))
        made.parts = tuple(parts)
        return made

    @property
    def quotes(self) -> tuple[str, ...]:
        """The quotes in their order."""
        return self.parts[1::2]

    def with_quotes(self, change: Callable[[str], str]) -> str:
        """The message with each quote changed."""
        return "".join(change(part) if number % 2 else part for number, part in enumerate(self.parts))
