"""What is wrong in a set of images and labels: the kinds of findings, a table of them in flat arrays, its summary by
kind and its CSV. Not for finding it: utils/label_files.py verifies single files, utils/labels.py whole sets."""

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
NO_LABELS, EMPTY = KINDS[:2]
# Kinds whose text is always the same. A set may have a million of them: the table keeps only which image it is about.
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
    """The F findings of a whole set.

    Attributes:
        kinds: (F,) uint8, the place of each one's kind in KINDS.
        owners: (F,) int32, of a STANDARD kind: the number of the usable image whose label file it is about; else -1.
        texts, offsets: uint8, the file, a NUL byte and the text of all other kinds, one after the other; finding i has
            the bytes offsets[i] to offsets[i + 1], (F + 1,) offsets.
    """

    kinds: np.ndarray
    owners: np.ndarray
    texts: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.kinds)

    def each(self, numbers: Sequence[int] | np.ndarray, label_of: Callable[[int], str]) -> Iterator[Finding]:
        """The findings with these numbers, 0 to F-1. label_of: from a usable image's number to its label file."""
        for number in numbers:
            kind = KINDS[self.kinds[number]]
            if self.owners[number] >= 0:
                yield Finding(kind, label_of(int(self.owners[number])), STANDARD[kind])
                continue
            text = os.fsdecode(self.texts[self.offsets[number] : self.offsets[number + 1]].tobytes())
            file, _, what = text.partition("\0")
            yield Finding(kind, file, what)


# What Findings consists of, with the types: a label cache stores these.
ARRAYS = {"kinds": np.uint8, "owners": np.int32, "texts": np.uint8, "offsets": np.int64}


def pack(found: Sequence[tuple[int, Finding]]) -> Findings:
    """The table of (image, finding) pairs; image: the number, among the usable ones, of the image that it is about."""
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
    """One table from those of the parts of a set, in their order. usable: how many usable images each part has."""
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
    """Raises ValueError where the arrays, which come from a file that may be damaged, don't fit each other or a set of
    so many usable images."""
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
    """Kind -> a line with how often it was found and the first files, most frequent kind first. label_of: see
    each()."""
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
    """Writes a CSV in UTF-8 with a row (file, kind, what) for each finding. Without findings it writes none, and
    removes one that an earlier run has left. Returns whether it wrote. Raises OSError where it cannot."""
    if not len(findings):
        file.unlink(missing_ok=True)
        return False
    with open(file, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        found = findings.each(range(len(findings)), label_of)
        writer.writerows((finding.file, finding.kind, finding.what) for finding in found)
    return True
