"""A small run folder of the bundled model for the explorer's tests: made-up records beside real candidates."""

from pathlib import Path

import run_folder
from refusal.direction import Candidates
from refusal.extraction import mean_difference
from refusal.model import ChatModel
from refusal.prompts import PromptSet
from refusal.records import read_json, read_rows, write_json, write_rows
from refusal.rule import SELECTED, SURVIVOR

LONGEST = 96
PLACE = (-4, 7)  # where a run of the bundled model reads its direction


def build(folder: Path, model: ChatModel, harmful: PromptSet, harmless: PromptSet, *, response: str = "") -> Path:
    """Write the folder: its direction is found on a few prompts, and its prompts are the bundled model's own."""
    run_folder.build(folder, response=response)
    write_json(folder / "run.json", read_json(folder / "run.json") | {"model": "organism", "max_new_tokens": LONGEST})
    rows = read_rows(folder / "selection.jsonl")
    for row in rows:
        here = (row["position"], row["layer"]) == PLACE
        row["verdict"] = SELECTED if here else SURVIVOR if row["verdict"] == SELECTED else row["verdict"]
    write_rows(folder / "selection.jsonl", rows)
    found = mean_difference(model, harmful.train[:24], harmless.train[:24])
    found.save(folder / "candidates.safetensors")
    Candidates.load(folder / "candidates.safetensors").at(*PLACE).save(folder / "direction.safetensors")
    for name, prompts in (("harmful", harmful.test), ("harmless", harmless.test)):
        for path in (folder / "completions").glob(f"{name}.*.jsonl"):
            asked = [prompt.instruction for prompt in prompts]
            write_rows(path, [row | {"prompt": asked[i]} for i, row in enumerate(read_rows(path))])
    return folder
