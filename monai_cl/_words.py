"""Words of messages: the closest of the names that are valid, and arguments as a shell takes them."""

import difflib
import shlex
from collections.abc import Iterable


def suggestion(name: object, valid: Iterable[object], *, form: str = ", did you mean {!r}?") -> str:
    """Words after an unknown name: the closest valid one, or nothing where none is close.

    Args:
        name: The unknown name.
        valid: The valid ones.
        form: The words, with ``{!r}`` for the name.

    Example:
        >>> suggestion("budgetz", ["budgets", "seeds"]), suggestion("x", ["budgets"])
        (", did you mean 'budgets'?", '')
    """
    close = difflib.get_close_matches(str(name), [str(each) for each in valid], n=1)
    return form.format(close[0]) if close else ""


def id_suggestion(name: str, valid: Iterable[str]) -> str:
    """Up to three ids that resemble a name as a whole or, for one who left out the way to it, in the last part."""
    whole: dict[str, str] = {}
    last: dict[str, str] = {}
    for option in sorted(valid, key=lambda text: (text.count("::"), text)):
        whole.setdefault(option.casefold(), option)
        last.setdefault(option.casefold().rpartition("::")[2], option)
    folded = name.casefold()
    close = [whole[match] for match in difflib.get_close_matches(folded, whole, n=2)]
    close += [last[match] for match in difflib.get_close_matches(folded.rpartition("::")[2], last, n=2, cutoff=0.7)]
    best = [repr(option) for option in dict.fromkeys(close)][:3]
    return f", did you mean {' or '.join(best)}?" if best else ""


def quoted(argument: str) -> str:
    r"""An argument as one gives it in a shell.

    Example:
        >>> quoted("a b"), quoted("['a']")
        ("'a b'", '"[\'a\']"')
    """
    # lists hold single quotes, so double ones around them are the readable choice
    if "'" in argument and not set(argument) & set('"$`\\!'):
        return f'"{argument}"'
    return shlex.quote(argument)
