"""The project's version, which pyproject.toml reads from here. Nothing else."""

__version__ = "0.1.0"
