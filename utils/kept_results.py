"""Results of trials that the study's database did not take: kept in the trial's directory until it answers. Not for the
study itself: that is utils/study.py."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.evolution import Range
from utils.files import atomic_write
from utils.hyp import Hyp
from utils.log import LOGGER
from utils.study import RESULT, UNREADABLE, DatabaseFault, answering, result_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

KEPT = "untold.json"  # in the trial's directory
LARGEST_KEPT = 1 << 20  # bytes: 50,000 epochs


@dataclass(frozen=True)
class KeptResult:
    """What a finished trial reached.

    Attributes:
        number: of the trial, as its directory has it.
        params: the hyperparameters that were drawn.
        result: what the study keeps in its attribute RESULT.
        scores: the fitness of each epoch that was validated, by its number.
    """

    number: int
    params: dict[str, float]
    result: dict[str, Any]
    scores: dict[int, float] = field(default_factory=dict)


def keep(kept: KeptResult, directory: Path) -> Path | None:
    """Writes it into the trial's directory. Returns the file; None where that cannot be written either."""
    try:
        with atomic_write(directory / KEPT) as stream:
            stream.write(json.dumps(asdict(kept)).encode())
    except OSError as error:
        LOGGER.warning(f"The result of trial {kept.number} cannot be kept either: {error}")
        return None
    return directory / KEPT


def tell_kept(study: "Study", directory: Path, start: Hyp, *, space: Mapping[str, Range], url: str) -> None:
    """Tells the study what earlier calls kept below its directory, each as a new trial, and removes these files. One
    that is no result of such a trial is passed over with a warning. Raises DatabaseFault."""
    for file in sorted(directory.glob(f"trial*/{KEPT}")):
        try:
            kept = _read(file)
            new = _as_trial(kept, start, space)
            with answering(url):
                number = _told_number(study, kept, new)
        except DatabaseFault:
            raise
        except (OSError, ValueError, *UNREADABLE) as error:
            LOGGER.warning(f"{file} is passed over, as it holds no result of --evolve: {str(error)[:200]}")
            continue
        file.unlink(missing_ok=True)
        LOGGER.info(f"The study has the result kept in {file.parent} now, as trial {number}")


def _read(file: Path) -> KeptResult:
    with open(file, "rb") as stream:
        content = stream.read(LARGEST_KEPT + 1)
    if len(content) > LARGEST_KEPT:
        raise ValueError(f"expected at most {LARGEST_KEPT >> 20} MB")
    told = json.loads(content)
    params = {str(name): float(value) for name, value in told["params"].items()}
    scores = {int(epoch): float(score) for epoch, score in told["scores"].items()}
    return KeptResult(int(told["number"]), params, dict(told["result"]), scores)


def _as_trial(kept: KeptResult, start: Hyp, space: Mapping[str, Range]) -> "FrozenTrial":
    """As the study takes it. Raises InputError or one of UNREADABLE where it would harm the study."""
    from optuna.distributions import FloatDistribution
    from optuna.trial import TrialState, create_trial

    pruned = kept.result["state"] == "pruned"
    ranges = {name: space[name] for name in kept.params}
    trial = create_trial(
        state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
        value=None if pruned else float(kept.result["fitness"]),
        params=kept.params,
        distributions={name: FloatDistribution(of.low, of.high, log=of.log) for name, of in ranges.items()},
        user_attrs={RESULT: kept.result},
        intermediate_values=kept.scores,
    )
    if not math.isfinite(result_of(trial, start).fitness):
        raise ValueError(f"a finite fitness was expected, got {kept.result['fitness']}")
    return trial


def _told_number(study: "Study", kept: KeptResult, new: "FrozenTrial") -> int:
    """Adds it to the study and gives up the trial that it comes from. Returns its number there."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False):
        if trial.params == kept.params and trial.state.is_finished() and trial.user_attrs.get(RESULT) == kept.result:
            return trial.number
        if _is_source(trial, kept):
            study.tell(trial.number, state=TrialState.FAIL)
    study.add_trial(new)
    return study.get_trials(deepcopy=False)[-1].number


def _is_source(trial: "FrozenTrial", kept: KeptResult) -> bool:
    return trial.number == kept.number and trial.params == kept.params and not trial.state.is_finished()
