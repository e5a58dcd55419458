"""The pages of the site that are no files of docs/: the README, the changelog, the notebooks and the public names.

mkdocs calls the `on_…` functions. Links to files that are not on the site become their names. The commands' help, in
docs/cli.md as a terminal shows it, becomes lists that fit any width.
"""

import ast
import json
import posixpath
import re
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(?P<text>!?\[[^\]]*\])\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
HELP = re.compile(r"^```text\n(.*?)\n```$", re.DOTALL | re.MULTILINE)  # in docs/cli.md
ENTRY = re.compile(r" {2}(\S.*?)(?: {2,}(\S.*))?")  # an argument or a command, with its sentence or before it
OUTPUT = re.compile(r'<p>\s*<span data-output="(\d+)"></span>\s*</p>')

# The public names by what they are for: heading → names of the package.
API = {
    "Prompts and models": ("load_prompts", "Prompt", "PromptSet", "load_model", "ChatModel", "Architecture"),
    "Finding a direction": (
        *("mean_difference", "Candidates", "find_refusal_tokens", "filter_prompts", "select_direction", "Limits"),
        *("Direction", "load_direction", "recover_direction"),
    ),
    "Interventions": ("ablate", "add", "capture"),
    "Answers": ("generate", "Completion", "judge", "side_by_side"),
    "Weights": (
        *("orthogonalize", "bake_addition", "coverage", "export_checkpoint", "export_lora", "export_control_vector"),
        "verify_export",
    ),
    "What it costs": ("cross_entropy", "divergence", "measure_capabilities"),
    "Runs": ("run", "RunConfig", "RefusalError"),
}


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made here."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Point the links of a page of docs/ at the site, and lay out the commands' help."""
    made = pages()
    if page.file.src_uri == "cli.md":
        return HELP.sub(lambda match: help_list(match[1]), markdown)
    return markdown if page.file.src_uri in made else linked(markdown, f"docs/{page.file.src_uri}")


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Put the outputs of a notebook into its page."""
    path = ROOT / "examples" / f"{Path(page.file.src_uri).stem}.ipynb"
    if not page.file.src_uri.startswith("notebooks/"):
        return html
    found = outputs(path)
    return OUTPUT.sub(lambda match: found[int(match[1])], html)


def pages() -> dict[str, str]:
    """Return path on the site → Markdown of every page that is made here."""
    own = {page: linked((ROOT / source).read_text(encoding="utf-8"), source) for source, page in PAGES.items()}
    notebooks = {site_path(f"examples/{path.name}"): notebook(path) for path in (ROOT / "examples").glob("*.ipynb")}
    return {**own, **notebooks, "api.md": api_page(), "api-mechanism.md": mechanism_page()}


def site_path(path: str) -> str | None:
    """Return where a file of the repository is on the site, or None."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/") and (ROOT / path).is_file():
        return path.removeprefix("docs/")
    if path.startswith("examples/") and path.endswith(".ipynb"):
        return f"notebooks/{Path(path).stem}.md"
    return None


def linked(markdown: str, source: str) -> str:
    """Point the links of a file of the repository at the site; what is not on it stays as text."""
    here = posixpath.dirname(str(site_path(source)))

    def point(match: re.Match[str]) -> str:
        target = match["target"]
        if "://" in target:
            return match[0]
        path = site_path(posixpath.normpath(posixpath.join(posixpath.dirname(source), target)))
        if path is None:
            return match["text"].strip("[]")
        return f"{match['text']}({posixpath.relpath(path, here or '.')}{match['anchor'] or ''})"

    return LINK.sub(point, markdown)


def notebook(path: Path) -> str:
    """Return a notebook as Markdown, with a place for every output."""
    parts, number = [], 0
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(linked(source, f"examples/{path.name}"))
            continue
        parts.append(f"```python\n{source}\n```")
        for _ in cell["outputs"]:
            parts.append(f'<span data-output="{number}"></span>')
            number += 1
    note = f"This page is the notebook `examples/{path.name}` with what it showed when it was last executed."
    return "\n\n".join([*parts, f"---\n\n*{note}*"])


def outputs(path: Path) -> list[str]:
    """Return the outputs of a notebook as HTML: as they are where they are HTML, else as escaped text."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    found = []
    for output in (output for cell in cells for output in cell.get("outputs", ())):
        data = output.get("data", {"text/plain": output.get("text", "")})
        html, text = ("".join(data.get(kind, "")) for kind in ("text/html", "text/plain"))
        found.append(f'<div class="output">{html or f"<pre>{escape(text)}</pre>"}</div>')
    return found


def help_list(text: str) -> str:
    """Return the help of a command as HTML: the usage as code, groups of arguments as lists, the rest as paragraphs."""
    lines = text.split("\n")
    made: list[str] = []
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        entry = ENTRY.fullmatch(line)
        if line.startswith("usage: "):
            made.append(f'<p class="usage"><code>{escape(line.removeprefix("usage: "))}</code></p>')
        elif line.startswith("Example: "):
            made.append(f"<p>Example: <code>{escape(line.removeprefix('Example: '))}</code></p>")
        elif after.strip().startswith("---"):
            made.append(f"<p><strong>{escape(line.strip().capitalize())}</strong></p>")
        elif entry:
            made.append(f"<dl><dt><code>{escape(entry[1])}</code></dt><dd>{_said(entry[2] or '')}</dd></dl>")
        elif line.startswith("  "):  # a sentence goes on
            made[-1] = made[-1].replace("</dd></dl>", f" {_said(line)}</dd></dl>")
        elif line.strip(" -"):
            made.append(f"<p>{_said(line)}</p>")
    return f'<div class="help">{"".join(made).replace("</dl><dl>", "")}</div>'


def _said(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text.strip()))


def homes() -> dict[str, str]:
    """Return public name → its module, read from the package without importing it."""
    for node in ast.parse((ROOT / "src" / "refusal" / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            return ast.literal_eval(node.value)
    raise AssertionError("the package has no table of its public names")


def api_page() -> str:
    """Return the page of all public names of `refusal`."""
    found = homes()
    head = [
        "# Public names",
        "`import refusal` loads nothing heavy: each of these names is loaded on first use. Shapes of tensors stand in",
        "the signatures, in one alphabet: `n` prompts, `p` positions, `l` layers, `b` batch, `s` sequence,",
        "`d` d_model, `v` vocabulary, `h` heads, `k` rank.",
    ]
    parts = [f"\n## {heading}\n\n{_entries(found, names)}" for heading, names in API.items()]
    return "\n".join([*head, *parts])


def mechanism_page() -> str:
    """Return the page of what `refusal.mechanism` offers."""
    tree = ast.parse((ROOT / "src" / "refusal" / "mechanism" / "__init__.py").read_text(encoding="utf-8"))
    modules = {
        a.name: str(n.module).removeprefix("refusal.")
        for n in tree.body
        if isinstance(n, ast.ImportFrom)
        for a in n.names
    }
    measures = [name for name in modules if name.startswith(("measure", "study", "find"))]
    others = [name for name in modules if name not in measures and name[0].isupper() and not name.isupper()]
    return (
        f"# Inside a model\n\n{ast.get_docstring(tree).splitlines()[0]}\n\n"
        "Analyses are functions of `refusal.mechanism`; `refusal run` does all of them, and in a notebook\n"
        "`refusal.report.notebook.show` shows what one found as the report does.\n\n"
        f"## Analyses\n\n{_entries(modules, measures)}\n## What they take and return\n\n{_entries(modules, others)}"
    )


def _entries(modules: dict[str, str], names: Any) -> str:
    return "\n".join(f"::: refusal.{modules[name]}.{name}\n" for name in names)
