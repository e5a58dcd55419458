"""The live page: where things stand, and which of them answers to which."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from refusal import svg
from refusal.config import BUNDLED
from refusal.errors import RefusalError
from refusal.explorer import watching
from refusal.explorer.asked import EXAMPLES, KNOWS
from refusal.explorer.exporting import export_checkpoint, save_direction
from refusal.explorer.grid import Picked
from refusal.explorer.live import Live
from refusal.explorer.markup import render
from refusal.explorer.opening import Subject, other_half
from refusal.explorer.turns import Turns
from refusal.explorer.widgets import QUICK, facts_of, grid_of, heat_map, html

NOW = "(...given) => [...given.slice(0, -1), performance.now()]"  # the tab's own order of what it asked for
# The same, for a prompt, a strength (within its limits, whatever was typed), directions and the time.
ASKED = "(text, c, picked, now) => [text, window.explorer.strength(c), picked, performance.now()]"
MANY: Any = {
    "js": NOW,
    "concurrency_limit": None,
    "trigger_mode": "multiple",
    "show_progress": "hidden",
    "api_visibility": "private",
}
ANSWER, EXPORT = "answer", "export"  # what a session may have going on
PAINT_JS = "window.explorer.paint(); watch('value', () => window.explorer.paint());"


def play(
    blocks: gr.Blocks, subject: Subject, running: Live, turns: Turns, files: Path, *, found: Sequence[str] = ()
) -> None:
    """Lay out the live page, and say what answers to what; `found` are sentences on what the run measured."""
    assert subject.picked
    chosen = subject.picked
    picked, now = gr.State(chosen), gr.Number(visible=False)
    with gr.Row(elem_classes="play"):
        with gr.Column(scale=1, min_width=300, elem_classes="controls"):
            offered, prompt, ask, stop, strength = _asking(subject)
        with gr.Column(scale=3, min_width=300):
            answers = html(elem_id="answers")
            examples = _examples() if running.model.name == BUNDLED else []
            if found:
                html(render("measured", {"sentences": found}))
            html("<h2>Every candidate: click one to try it</h2>")
            score, heat = heat_map(subject, picked)
            with gr.Row(elem_classes="choosing"):
                which = gr.Radio(
                    [("A click chooses direction A", "A"), ("B, to compare", "B")],
                    value="A",
                    label="A click chooses",
                    container=False,
                )
                again = gr.Button("Back to the run's own direction", size="sm", scale=0, min_width=240)
            facts = html(facts_of(subject, running, chosen), elem_id="facts")
            html("<h2>Tokens and their component on the direction</h2>")
            last, at = running.candidates.n_layers - 1, chosen.first[1]
            html(render("layers", {"last": last, "layer": at}), elem_id="layers")
            strips = html(elem_id="strips", js_on_load=PAINT_JS)
            export = _export(subject, running, turns, files, picked, now)

    def pick(which: str, score: str, picked: Picked, event: gr.EventData) -> Any:
        at = (int(event.position), int(event.layer))
        new = Picked(at, picked.second) if which == "A" else Picked(picked.first, at)
        return new, *picture(score, new)

    def picture(score: str, picked: Picked) -> tuple[str, str, str]:
        try:
            own = save_direction(running.candidates.at(*picked.first), files)
        except RefusalError as error:  # such as a candidate that is not finite
            raise gr.Error(str(error), print_exception=False) from error
        return grid_of(subject, score, picked), facts_of(subject, running, picked), str(own)

    drawn = [heat, facts, export]
    work: Any = {
        "fn": _answering(subject, running, turns),
        "inputs": [prompt, strength, picked, now],
        "outputs": [answers, strips],
        **MANY,
    }
    work["js"] = ASKED
    blocks.load(**work)
    gr.on([ask.click, prompt.submit, strength.input], **work)
    offered.input(lambda text: text, offered, prompt, **QUICK).then(**work)
    for example in examples:
        example.click(lambda text: text, example, prompt, **QUICK).then(**work)
    heat.pick(pick, [which, score, picked], [picked, *drawn], **QUICK).success(**work)
    again.click(lambda score: (chosen, *picture(score, chosen)), score, [picked, *drawn], **QUICK).then(**work)
    stop.click(stopping(turns, ANSWER), **QUICK)


def _asking(subject: Subject) -> tuple[gr.Dropdown, gr.Textbox, gr.Button, gr.Button, gr.Slider]:
    """Lay out what is asked and how strongly; the prompt that stands there first has another beside it."""
    beside = other_half(subject.prompts)
    _, first = (other_half(subject.prompts, beside[1]) if beside else None) or beside or ("", "")
    offered = gr.Dropdown(_offered(subject.prompts), label="A held-out prompt", value=first or None)
    prompt = gr.Textbox(first, label="Prompt: one of the list, or your own", lines=2, max_lines=6, elem_id="prompt")
    with gr.Row():
        ask = gr.Button("Answer", variant="primary", min_width=80)
        stop = gr.Button("Stop", min_width=80)
    strength = gr.Slider(-2, 2, 0, step=0.1, label="Strength of what is added (c)", elem_id="strength")
    html(render("marks", {}))
    return offered, prompt, ask, stop, strength


def _answering(subject: Subject, running: Live, turns: Turns) -> Callable[..., Iterator[Any]]:
    """Return what answers a tab's prompt, and the one beside it, at a strength and with the directions picked."""

    def answer(text: str, strength: svg.Number, picked: Picked, now: svg.Number, request: gr.Request) -> Iterator[Any]:
        going = turns.begin(_session(request) + ANSWER, asked=float(now))
        beside = other_half(subject.prompts, text)
        named = (f"And a {beside[0]} one", beside[1]) if beside and beside[1] != text else None
        called = next((f"A {name} prompt" for name, one in subject.prompts if one == text), "Your prompt")
        how: Any = {"called": called, "beside": named, "going": going}
        for shown, tokens in watching.watch(running, text, picked, float(strength), **how):
            yield shown if shown is not None else gr.skip(), tokens if tokens is not None else gr.skip()

    return answer


def _examples() -> list[gr.Button]:
    """Lay out what the bundled model can be asked."""
    with gr.Accordion("What it can be asked", open=False):
        html(render("fine", {"text": f"{KNOWS}: all that is harmful in it is invented. Such as:"}))
        with gr.Row():
            return [gr.Button(text, size="sm", min_width=200) for text in EXAMPLES]


def _export(
    subject: Subject, running: Live, turns: Turns, files: Path, picked: gr.State, now: gr.Number
) -> gr.DownloadButton:
    """Lay out what can be taken away: the direction as a file, and the edited model as a checkpoint."""
    assert subject.picked
    with gr.Accordion("Take it with you", open=False):
        own = save_direction(running.candidates.at(*subject.picked.first), files)
        saved = gr.DownloadButton("Direction A (safetensors)", value=str(own), size="sm")
        folder = gr.Textbox(
            label="Folder for the edited model", placeholder="edited", info="On the machine that runs this."
        )
        with gr.Row():
            write = gr.Button("Write the checkpoint", size="sm", min_width=80)
            stop = gr.Button("Stop", size="sm", min_width=80)
        told = html(elem_id="export")

    def export(folder: str, picked: Picked, now: svg.Number, request: gr.Request) -> Iterator[str]:
        going = turns.begin(_session(request) + EXPORT, asked=float(now))
        direction = running.candidates.at(*picked.first)
        how: Any = {"architecture": subject.architecture, "going": going}
        for state, lines in export_checkpoint(running.model.name, direction, folder, **how):
            yield render("export", {"state": state, "lines": lines})

    write.click(export, [folder, picked, now], told, **MANY)
    stop.click(stopping(turns, EXPORT), **QUICK)
    return saved


def _offered(prompts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(f"{name}: {' '.join(text.split())[:90]}", text) for name, text in prompts]


def _session(request: gr.Request) -> str:
    return str(request.session_hash)


def stopping(turns: Turns, *works: str) -> Callable[[gr.Request], None]:
    """Return what ends a session's answers, or another work of it."""

    def stop(request: gr.Request) -> None:
        for work in works:
            turns.stop(_session(request) + work)

    return stop
