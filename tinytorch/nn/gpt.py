"""A GPT."""

__all__: list[str] = []
