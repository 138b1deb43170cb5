"""Fixtures of stored runs."""

from runs.store_fixtures import folder, opened, store

__all__ = ["folder", "opened", "store"]
