"""How the pages are served: what they may read, how many wait, how much may be brought."""

from __future__ import annotations

from typing import Any

__all__ = ["LIMITS", "STYLE", "UPLOAD", "WAITING", "launching", "theme"]

#: As many pictures to choose from in a row as fit, also on a phone; what was made is shown whole; pictures that are
#: voted on leave room for the buttons; on a phone prompts are one row to swipe, and a wide table moves in its frame.
STYLE = """
.choices .grid-container { grid-template-columns: repeat(auto-fill, minmax(88px, 1fr)) !important; }
.made .grid-wrap, .choices .grid-wrap {
  max-height: none !important; min-height: 0 !important; overflow-y: visible !important;
}
.brought img { width: 100%; height: 100%; object-fit: contain; }
[id^="vote-"] { white-space: nowrap; padding-inline: 6px; }
.slots:not(:has(.block)) { display: none; }
.html-container { padding: 2px 0 !important; }
.scores { overflow-x: auto; border: 1px solid var(--border-color-primary); border-radius: 8px; }
.scores table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.scores caption { text-align: left; padding: 8px 14px; font-size: 0.9em; opacity: 0.75; }
.scores th, .scores td { padding: 7px 14px; text-align: left; white-space: nowrap; }
.scores th, .scores td { border: 0 !important; border-top: 1px solid var(--border-color-primary) !important; }
.scores table, .scores tr { border: 0 !important; margin: 0 !important; }
.scores thead th { font-weight: 400; opacity: 0.75; }
@media (max-width: 600px) {
  #prompts .gallery { flex-wrap: nowrap; overflow-x: auto; padding-bottom: 4px; }
  #prompts .gallery > * { flex: none; }
}
.voted img { width: 100%; max-height: min(512px, 56vh); object-fit: contain; }
"""
UPLOAD = 64 * 2**20  # bytes of a file that somebody brings, at most
WAITING = 16  # requests in the queue
LIMITS = f"One request at a time, {WAITING} may wait; files up to {UPLOAD // 2**20} MB."


def theme() -> Any:
    """Gradio's own in the report's blue, with the fonts of the reader's machine: nothing is loaded from elsewhere."""
    import gradio as gr

    return gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["system-ui", "sans-serif"]
    )


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
