"""``report.html``: a training run as one page that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import tempfile
from importlib import resources
from pathlib import Path

from textgym_agents.report import sections
from textgym_agents.report.html import embed, escape
from textgym_agents.report.run import Run, read_run


def write_report(run_dir: str | Path) -> Path:
    """Writes ``report.html`` into a run folder, from what the folder holds.

    The page is one file without any address in it. Its content security policy forbids all requests, and all scripts but
    its own: the texts that it shows may come from anywhere. A missing file costs its section, and the page says so.

    Args:
        run_dir: The folder of a training run.

    Returns:
        The path of the page.

    Raises:
        RunError: ``run_dir`` is no folder, or a file in it is malformed; the message names it.
    """
    folder = Path(run_dir)
    return write_atomically(folder / "report.html", render(read_run(folder)).encode())


def render(run: Run) -> str:
    """The page."""
    script = _part("script.js")
    charts, chart_data = sections.curves(run)
    episodes, episode_data = sections.episodes(run)
    content = {
        "title": escape(sections.title(run)),
        "policy": _policy(script),
        "style": _part("style.css"),
        "lead": sections.lead(run),
        "results": sections.results(run),
        "curves": charts,
        "samples": sections.samples(run),
        "episodes": episodes,
        "settings": sections.settings(run),
        "data": embed({"charts": chart_data, "episodes": episode_data}),
        "script": script,
    }
    # In one pass, so that nothing inside the content is taken for a placeholder.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: content[match[1]], _part("template.html"))


def write_atomically(path: Path, content: bytes) -> Path:
    """Writes a file that appears complete or not at all."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")
