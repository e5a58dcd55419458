"""A local web page over a run and, where its model can be loaded, over the live model.

opening.py    a run folder → what there is to show: its records, its model, prompts to try
live.py       one prompt answered in several ways at once, token by token, with every token's component
turns.py      whose turn it is: one model, several tabs, and what was stopped
watching.py   answers as they are shown: markup at a readable pace, and errors as messages
asked.py      what the bundled model can be asked, and what of a prompt it has never met
recorded.py   records of a run → values of the page
grid.py       the candidates as a heat map to click on
markup.py     values → escaped markup
exporting.py  a direction as a file, an edited checkpoint into a folder
page.py       the page itself, and all that knows gradio
serving.py    who may see it: addresses, password, and no host but this one
"""

from refusal.explorer.serving import explore

__all__ = ["explore"]
