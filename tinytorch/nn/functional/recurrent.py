"""Recurrent cells as functions."""

__all__: list[str] = []
