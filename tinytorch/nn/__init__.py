"""Modules: layers with parameters."""
