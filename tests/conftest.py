"""What every test shares: no network, one thread, repeatable properties, the bundled model loaded once."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # a misspelt name has to fail as it does without a network
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # the models are tiny: threads cost more than they give
os.fsync = lambda _descriptor: None  # nothing here pulls the plug, and thousands of small files would wait for the disk
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("repeatable")
# Files that take longest, longest first: begun last, one of them would run while the other workers have nothing to do.
LONG = (
    "explorer_browser",
    "organism_run",
    "pipeline",
    "zoo",
    "generation",
    "checkpoint",
    "cli",
    "examples",
    "reference",
)


def pytest_collection_modifyitems(items):
    """Put long files first; `make test` gives them to its workers as they stand."""
    turns = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: turns.get(item.path.stem, len(turns)))


@pytest.fixture(scope="session")
def bundled():
    """The bundled chat model. Read only."""
    from refusal.model import load_model

    return load_model()


@pytest.fixture(scope="session")
def harmful():
    """The bundled model's harmful prompts: invented poisons, machines and curses."""
    from refusal.prompts import load_prompts

    return load_prompts("harmful")


@pytest.fixture(scope="session")
def harmless():
    """The bundled model's harmless prompts."""
    from refusal.prompts import load_prompts

    return load_prompts("harmless")
