"""What is wrong in a set of images and labels: kinds, a table of findings in flat arrays, its summary by kind, and the
CSV of all of it. Not for how it is found: utils/label_files.py verifies files, utils/labels.py whole sets."""

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

# Kinds by number. A label cache keeps the numbers: raise CACHE_FORMAT in utils/labels.py when they change.
KINDS = (
    "missing label file",
    "empty label file",
    "duplicate rows",
    "bytes after the image",
    "no image file",
    "corrupt image",
    "truncated image",
    "image too small",
    "image too large",
    "image of another format",
    "unreadable label file",
    "wrong number of columns",
    "not a number",
    "class out of range",
    "class not whole",
    "coordinates out of range",
)
NO_LABELS, EMPTY = KINDS[:2]  # told without words of their own, as a set may have a million of them
STANDARD = {NO_LABELS: "no labels: trained on as background", EMPTY: "empty: the image is trained on as background"}
NAMED = 3  # files that the summary names for each kind
LONGEST_SUMMARY_NAME = 200  # characters of one of them
COLUMNS = ("file", "kind", "what")


class Finding(NamedTuple):
    """One fault or oddity: its kind (of KINDS), the file it is in, and what it is."""

    kind: str
    file: str
    what: str


@dataclass(frozen=True, eq=False)
class Findings:
    """Findings of a whole set. kinds (F,) uint8, numbers in KINDS; owners (F,) int32, the usable image whose label
    file is missing or empty, -1 for all others, whose `file NUL what` stand in texts uint8 with offsets (F+1,)."""

    kinds: np.ndarray
    owners: np.ndarray
    texts: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.kinds)

    def each(self, numbers: Sequence[int] | np.ndarray, label_of: Callable[[int], str]) -> Iterator[Finding]:
        """The findings of these numbers. label_of: from a usable image's number to its label file."""
        for number in numbers:
            kind = KINDS[self.kinds[number]]
            if self.owners[number] >= 0:
                yield Finding(kind, label_of(int(self.owners[number])), STANDARD[kind])
                continue
            text = os.fsdecode(self.texts[self.offsets[number] : self.offsets[number + 1]].tobytes())
            file, _, what = text.partition("\0")
            yield Finding(kind, file, what)


ARRAYS = {"kinds": np.uint8, "owners": np.int32, "texts": np.uint8, "offsets": np.int64}


def pack(found: Sequence[tuple[int, Finding]]) -> Findings:
    """A table of findings, each with the number of the usable image that it is about (-1 where there is none)."""
    owners = [owner if finding.kind in STANDARD else -1 for owner, finding in found]
    texts = [
        b"" if owner >= 0 else os.fsencode(f"{finding.file}\0{finding.what}")
        for owner, (_, finding) in zip(owners, found, strict=True)
    ]
    return Findings(
        np.array([KINDS.index(finding.kind) for _, finding in found], np.uint8),
        np.array(owners, np.int32),
        np.frombuffer(bytearray().join(texts), np.uint8),
        np.concatenate(([0], np.cumsum([len(text) for text in texts], dtype=np.int64))),
    )


NONE = pack([])


def join(parts: Sequence[Findings], usable: Sequence[int]) -> Findings:
    """One table from those of a set's parts, which have so many usable images each."""
    before = np.concatenate(([0], np.cumsum(usable, dtype=np.int64)))[: len(parts)]
    owners = [np.where(part.owners < 0, -1, part.owners + first) for part, first in zip(parts, before, strict=True)]
    lengths = np.concatenate([NONE.kinds, *(np.diff(part.offsets) for part in parts)])
    return Findings(
        np.concatenate([NONE.kinds, *(part.kinds for part in parts)]),
        np.concatenate([NONE.owners, *owners]).astype(np.int32),
        np.concatenate([NONE.texts, *(part.texts for part in parts)]),
        np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))),
    )


def check(findings: Findings, usable: int) -> None:
    """Raises ValueError where the arrays (of a file, which may be damaged) don't fit each other or the set."""
    if any(getattr(findings, name).dtype != kind or getattr(findings, name).ndim != 1 for name, kind in ARRAYS.items()):
        raise ValueError("its findings are of other types")
    bounds = findings.offsets
    fit = len(findings.owners) == len(findings) and bounds.shape == (len(findings) + 1,) and not bounds[0]
    if not fit or bounds[-1] != len(findings.texts) or (np.diff(bounds) < 0).any():
        raise ValueError("its findings don't fit")
    owned = findings.owners >= 0
    if (findings.kinds >= len(KINDS)).any() or (findings.owners >= usable).any():
        raise ValueError("its findings are of unknown kinds or images")
    if (findings.kinds[owned] >= len(STANDARD)).any():
        raise ValueError("its findings have no words")


def summary(findings: Findings, label_of: Callable[[int], str]) -> dict[str, str]:
    """A line for each kind that was found, by kind, most frequent first: how often, and the first file names."""
    counts = np.bincount(findings.kinds, minlength=len(KINDS))
    lines = {}
    for kind in sorted(np.flatnonzero(counts), key=lambda kind: (-counts[kind], kind)):
        first = findings.each(np.flatnonzero(findings.kinds == kind)[:NAMED], label_of)
        told = [found.file[:LONGEST_SUMMARY_NAME] + _reason(found) for found in first]
        more = ", ..." if counts[kind] > NAMED else ""
        lines[KINDS[kind]] = f"{KINDS[kind]}: {counts[kind]} ({', '.join(told)}{more})"
    return lines


def _reason(found: Finding) -> str:
    return "" if found.kind in STANDARD else f": {found.what}"


def write_findings(findings: Findings, label_of: Callable[[int], str], file: Path) -> bool:
    """Writes a CSV with a row (file, kind, what) for each finding, in UTF-8; whether there was any: without one, no
    file is left from an earlier run. Raises OSError where it cannot be written."""
    if not len(findings):
        file.unlink(missing_ok=True)
        return False
    with open(file, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        found = findings.each(range(len(findings)), label_of)
        writer.writerows((finding.file, finding.kind, finding.what) for finding in found)
    return True
