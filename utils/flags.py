"""The command line of a script: its help, and what it answers to a flag or choice that there is not. The standard
library alone, as --help has to be instant. Not for values out of range: those are checked by the engines."""

import argparse
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, NoReturn

AddFlags = Callable[[Callable[..., argparse.Action]], None]
DASHES = "-\N{EN DASH}\N{EM DASH}"  # word processors make the long ones of two hyphens


class FlagParser(argparse.ArgumentParser):
    """argparse's parser with the flags in titled groups; a flag may be abbreviated as long as only one begins so.

    description: shown above the flags as it is written. groups: title -> a function that is given the group's
    add_argument and adds its flags.

    Differs from v6.1: a command line that it cannot read is answered in one line, with the flag or the choice that was
    probably meant, not with the usage of all flags. The exit code is 2, as there.
    """

    def __init__(self, description: str, groups: Mapping[str, AddFlags]) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        for title, add_flags in groups.items():
            add_flags(self.add_argument_group(title).add_argument)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The options in `args` (sys.argv where that is None). Ends the script where there are words left over."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._flags_meant(unknown)}")
        return options

    def error(self, message: str) -> NoReturn:
        """Ends the script with exit code 2 and the message, on one line."""
        self.exit(2, f"Error: {message}; {self.prog} --help tells all flags\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = {str(choice).lower(): str(choice) for choice in action.choices}
        meant = did_you_mean([str(value).lower()], choices)
        raise argparse.ArgumentError(action, f"one of {', '.join(choices.values())} was expected, got {value!r}{meant}")

    def _flags_meant(self, words: Iterable[str]) -> str:
        flags = {flag.lstrip("-"): flag for flag in self._option_string_actions}
        given = [word.lstrip(DASHES).partition("=")[0] for word in words if word.startswith(tuple(DASHES))]
        return did_you_mean([name.replace("_", "-") for name in given], flags)


def did_you_mean(words: Iterable[str], known: Mapping[str, str]) -> str:
    """The question which of `known` was meant: its keys are what words are held against, its values what is shown.
    Empty where no word is near a key."""
    near = [match for word in words for match in get_close_matches(word, known, n=1)]
    return f" (did you mean {', '.join(known[match] for match in near)}?)" if near else ""
