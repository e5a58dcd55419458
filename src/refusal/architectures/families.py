"""The rows: one a family of models that are laid out alike, in files by idea."""

from refusal.architectures import gpt, multimodal, postnorm, prenorm, recurrent
from refusal.architectures.row import Architecture

ROWS: tuple[Architecture, ...] = (*prenorm.ROWS, *postnorm.ROWS, *gpt.ROWS, *recurrent.ROWS, *multimodal.ROWS)
