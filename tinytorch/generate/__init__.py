"""Text from a decoder: a `Decoder` remembers what it has read, in caches that a compiler pass inserts."""

from .decoder import Decoder

__all__ = ["Decoder"]
