"""The page itself: the live part where there is a model, what was recorded, and how it looks."""

from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr
from fastapi import FastAPI
from fastapi.responses import FileResponse, PlainTextResponse

from refusal import svg
from refusal.errors import RefusalError
from refusal.explorer import recorded
from refusal.explorer.grid import Picked
from refusal.explorer.markup import render
from refusal.explorer.opening import Subject
from refusal.explorer.play import ANSWER, EXPORT, play, stopping
from refusal.explorer.turns import Turns
from refusal.explorer.widgets import QUICK, facts_of, grid_of, heat_map, html

HERE = Path(__file__).parent
FONTS = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]
MONO = ["ui-monospace", "SF Mono", "Menlo", "Consolas", "monospace"]


def application(subject: Subject) -> FastAPI:
    """Return the web application of a subject: the page, and the run's report as it was written."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/report", response_model=None)
    def report() -> FileResponse | PlainTextResponse:
        path = _report(subject)
        return FileResponse(path) if path.exists() else PlainTextResponse("This run has no report.", 404)

    # In the head, because gradio confines what is given as `css` to its own elements, colours of the page included.
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return gr.mount_gradio_app(
        app,
        page(subject),
        path="/",
        server_name="127.0.0.1",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=True,
        theme=_theme(),
        head=f"<style>{svg.STYLE}{style}</style><script>{script}</script>",
    )


def page(subject: Subject) -> gr.Blocks:
    """Return the page: live where there is a model, and what was recorded."""
    turns, files = Turns(), TemporaryDirectory(prefix="refusal-explorer-")
    model = str(subject.findings.record.get("model", ""))
    with gr.Blocks(title=f"Refusal in {model}", analytics_enabled=False, fill_width=True) as blocks:
        blocks.kept_files = files  # type: ignore[attr-defined]  # as long as the page
        html(render("head", {"model": model, "said": _said(subject)}))
        if subject.note:
            html(render("note", {"text": f"Only what was recorded is shown: {subject.note}"}))
        with gr.Tabs():
            if subject.live and subject.picked:
                with gr.Tab("Play"):
                    play(blocks, subject, subject.live, turns, Path(files.name), found=_found(subject))
            elif subject.findings.selection:
                with gr.Tab("Candidates"):
                    _candidates(subject)
            if subject.findings.completions:
                with gr.Tab("Recorded answers"):
                    _recorded(subject)
            if subject.findings.results or _report(subject).exists():
                with gr.Tab("Results") as tab:
                    _results(subject, tab)
        if not subject.findings.results:
            html(render("unmeasured", {"folder": str(subject.findings.folder)}))
        blocks.unload(stopping(turns, ANSWER, EXPORT))
    return blocks


def _candidates(subject: Subject) -> None:
    """Lay out the candidates of a run without its model: a click tells what is recorded of one."""
    picked = gr.State(subject.picked)
    if found := _found(subject):
        html(render("measured", {"sentences": found}))
    facts = html(facts_of(subject, None, subject.picked), elem_id="facts")
    score, heat = heat_map(subject, picked)

    def pick(score: str, event: gr.EventData) -> Any:
        new = Picked((int(event.position), int(event.layer)))
        return new, grid_of(subject, score, new), facts_of(subject, None, new)

    heat.pick(pick, [score], [picked, heat, facts], **QUICK)


def _recorded(subject: Subject) -> None:
    """Lay out the recorded answers: which set, which conditions, which prompts."""
    findings, sets = subject.findings, list(subject.findings.completions)
    name = sets[0]
    listed, usual = recorded.conditions(findings, name), recorded.usual(findings, name)
    with gr.Row():
        chosen = gr.Dropdown([(each.capitalize() + " prompts", each) for each in sets], value=name, label="Set")
        text = gr.Textbox(label="Holding the text", placeholder="anything")
        which = gr.Radio(recorded.FILTERS, value=recorded.EVERYTHING, label="Show")
    shown = gr.Dropdown(listed, value=usual, multiselect=True, label="Side by side")
    with gr.Row():
        back = gr.Button("← Previous", size="sm", min_width=80)
        on = gr.Button("Next →", size="sm", min_width=80)
    at = gr.State(1)

    def turn(by: int, name: str, kinds: list[str], text: str, which: str, page: int) -> tuple[str, int]:
        values = recorded.answers(findings, name, kinds, text=text, which=which, page=page + by if by else 1)
        return render("cards", values), values["page"]

    def another(name: str) -> Any:
        return gr.Dropdown(choices=recorded.conditions(findings, name), value=recorded.usual(findings, name))

    cards = html(turn(0, name, usual, "", recorded.EVERYTHING, 1)[0], elem_id="cards")
    turned: Any = {"inputs": [chosen, shown, text, which, at], "outputs": [cards, at], **QUICK}
    chosen.input(another, chosen, shown, **QUICK).then(partial(turn, 0), **turned)
    # Whoever types fast is shown what was typed last; `input` would not tell of text that is deleted or pasted.
    gr.on([shown.input, text.change, which.input], partial(turn, 0), **turned, trigger_mode="always_last")
    back.click(partial(turn, -1), **turned)
    on.click(partial(turn, 1), **turned)


def _results(subject: Subject, tab: gr.Tab) -> None:
    """Lay out what the report says of the run's numbers; it is made when it is first looked at."""
    findings = subject.findings
    html(render("results", {"report": _report(subject).exists()}))
    if not findings.results:
        return

    @cache
    def shown() -> str:
        from refusal.report import render_measured  # here, so that all else of the explorer does without the report

        try:
            return render_measured(findings)
        except RefusalError as error:  # such as a broken record of an analysis
            return render("message", {"text": str(error)})

    tab.select(shown, None, html('<p class="fine">Drawing the figures …</p>', elem_id="results"), **QUICK)


def _report(subject: Subject) -> Path:
    return subject.findings.folder / "report.html"


def _found(subject: Subject) -> list[str]:
    """Return what the run measured, in the report's sentences; nothing where it measured nothing."""
    if not subject.findings.results:
        return []
    from refusal.report.headline import headline  # here, as above

    return headline(subject.findings.results)


def _said(subject: Subject) -> str:
    if subject.live:
        return (
            "One direction in the model's activations: ablated, nothing is left along it; added, they are pushed along "
            "it. Which answers are refusals then?"
        )
    return f"Recorded in {subject.findings.folder}."


def _theme() -> gr.themes.Base:
    same = {
        "body_background_fill": "var(--paper)",
        "block_background_fill": "var(--paper)",
        "body_text_color": "var(--ink)",
    }
    same |= {"block_label_background_fill": "var(--paper)", "background_fill_primary": "var(--paper)"}
    same |= {"block_title_text_color": "var(--ink)", "block_info_text_color": "var(--muted)"}
    same |= {"border_color_primary": "var(--grid)", "body_text_color_subdued": "var(--muted)"}
    same |= {"button_primary_background_fill": "*primary_600", "button_primary_background_fill_hover": "*primary_700"}
    both: Any = same | {f"{name}_dark": value for name, value in same.items()}
    return gr.themes.Base(primary_hue="blue", neutral_hue="gray", font=FONTS, font_mono=MONO).set(
        layout_gap="12px", **both
    )
