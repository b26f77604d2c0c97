"""The tiny model and pictures of tests/engine, for trainings that something happens to."""

from tests.engine.conftest import data, tiny

__all__ = ["data", "tiny"]
