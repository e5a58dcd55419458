"""Exact coherence, for the bundled chat model only: its invented language says what a right answer is."""

from refusal.generation import Completion


def is_exact(completion: Completion) -> bool:
    """Tell whether the answer is exactly one that the bundled language's grammar asks for. A refusal is not."""
    from refusal.organism.language import exact

    return exact(completion.prompt, completion.response)
