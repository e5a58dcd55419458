"""The same edit in other forms than hooks.

memory.py  orthogonalize a loaded network
"""

from refusal.weights.memory import orthogonalize

__all__ = ["orthogonalize"]
