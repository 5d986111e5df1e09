"""How the pages are served: what they may read, how many wait, how much may be brought."""

from __future__ import annotations

from typing import Any

__all__ = ["LIMITS", "STYLE", "UPLOAD", "WAITING", "launching", "theme"]

#: As many pictures to choose from in a row as fit, also on a phone: none is cut off.
STYLE = ".choices .grid-container { grid-template-columns: repeat(auto-fill, minmax(88px, 1fr)) !important; }"
UPLOAD = 64 * 2**20  # bytes of a file that somebody brings, at most
WAITING = 16  # requests in the queue
LIMITS = f"One request at a time, {WAITING} may wait; files up to {UPLOAD // 2**20} MB."


def theme() -> Any:
    """Gradio's own, with the fonts of the reader's machine: the page loads nothing from elsewhere."""
    import gradio as gr

    return gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["system-ui", "sans-serif"])


def launching() -> dict[str, Any]:
    """What `Blocks.launch` is told: no file of this machine is served but those that a page itself shows."""
    from mmalign.demo.compare_page import KEYS

    return {
        "allowed_paths": [],
        "max_file_size": UPLOAD,
        "show_error": True,
        "theme": theme(),
        "css": STYLE,
        "head": KEYS,
        "footer_links": [],
    }
