"""Hyperparameters under which the training pipeline changes nothing, to switch single changes on."""

from utils.hyp import FIELDS, REQUIRED, Hyp


def make_hyp(**changes) -> Hyp:
    """Every value at its lowest, where it changes no picture, but for those given."""
    return Hyp(**{name: FIELDS[name].metadata["low"] for name in REQUIRED} | changes)
