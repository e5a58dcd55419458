"""Model families as data: where each one writes to its residual stream.

row.py       what a row says: blocks, sublayers, writers, readers
families.py  the rows
network.py   a row held against a loaded network: every parameter is accounted for, or it is an error
"""

from refusal.architectures.families import ROWS
from refusal.architectures.network import blocks, find, present, stream_width, writers
from refusal.architectures.row import Architecture, Norm, Writer

__all__ = ["ROWS", "Architecture", "Norm", "Writer", "blocks", "find", "present", "stream_width", "writers"]
