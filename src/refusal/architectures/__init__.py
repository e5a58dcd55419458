"""Model families as data: where each one writes to its residual stream.

row.py         what a row says: blocks, sublayers, writers, readers
parts.py       the words that rows are written in
prenorm.py     Llama and its kin        postnorm.py    a norm behind each sublayer
gpt.py         GPT-2 and its time       recurrent.py   state spaces and linear attention
multimodal.py  models that see          families.py    all rows
network.py     a row held against a loaded network: every parameter is accounted for, or it is an error
describe.py    the table in words
reading.py     a row of one's own, from a file
"""

from refusal.architectures.describe import describe
from refusal.architectures.families import ROWS
from refusal.architectures.network import blocks, find, outside, present, stream_width, writers
from refusal.architectures.reading import read_architecture
from refusal.architectures.row import COMPONENT_FREE, EXACT, MEASURED, Architecture, Norm, Writer

__all__ = [
    "COMPONENT_FREE",
    "EXACT",
    "MEASURED",
    "ROWS",
    "Architecture",
    "Norm",
    "Writer",
    "blocks",
    "describe",
    "find",
    "outside",
    "present",
    "read_architecture",
    "stream_width",
    "writers",
]
