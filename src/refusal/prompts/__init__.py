"""Contrast sets and evaluation sets by name: source, split, hash, licence, local file or download.

sets.py      Prompt, PromptSet: frozen values that know their origin
sources.py   the paper's sets as data: file, checksum, count, origin, licence
load.py      one door: a name, a file or a folder becomes a PromptSet
files.py     users' own txt, csv, json, jsonl and parquet files
download.py  a pinned file from a local folder or, once, from the network
sampling.py  the official sampling stream
leakage.py   the same prompt in two places: refused between splits, reported between evaluation sets
"""

from refusal.prompts.leakage import Overlap, check_disjoint, find_overlaps
from refusal.prompts.load import Listing, evaluation_overlaps, list_prompts, load_prompts
from refusal.prompts.sampling import Sample, paper_sample
from refusal.prompts.sets import SPLITS, Prompt, PromptSet, Split, prompts_sha256

__all__ = [
    "SPLITS",
    "Listing",
    "Overlap",
    "Prompt",
    "PromptSet",
    "Sample",
    "Split",
    "check_disjoint",
    "evaluation_overlaps",
    "find_overlaps",
    "list_prompts",
    "load_prompts",
    "paper_sample",
    "prompts_sha256",
]
