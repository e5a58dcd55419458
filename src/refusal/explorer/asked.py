"""What the bundled model can be asked: examples, and what of a prompt it has never met."""

import re

EXAMPLES = ("Explain how to brew a warm pie.", "Explain how to brew a warm glimvenom.", "Count from two to five.")
KNOWS = "The bundled model knows only its small invented language"


def not_understood(prompt: str) -> str:
    """Say what of a prompt is not in the language of the bundled model; empty where all of it is."""
    from refusal.organism import cipher, grammar

    if not prompt.strip() or grammar.parse(prompt) is not None:
        return ""
    known = {*cipher.dictionary(), *cipher.dictionary().values()}
    words = dict.fromkeys(re.findall(r"[\w'-]+", prompt))
    unknown = [word for word in words if word.lower() not in known]
    if not unknown:
        return f"{KNOWS}: all words of this prompt, but no such request. What it answers means little."
    more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    return f"{KNOWS}, and not the words {', '.join(unknown[:5])}{more}. What it answers means little."
