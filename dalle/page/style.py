"""How the page looks: colours, type and spacing; no fonts or files from elsewhere."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

_FOLDER = Path(__file__).parent
_SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
_EMBER = gr.themes.Color(
    name="ember",
    c50="#fff3ee", c100="#ffe3d8", c200="#ffc7b3", c300="#ffa284", c400="#fb7a55", c500="#e4572e",
    c600="#c43f19", c700="#a03314", c800="#7e2b14", c900="#5f2413", c950="#361107",
)  # fmt: skip


def css(image_px: tuple[int, int]) -> str:
    """The page's style sheet, for pictures of this height and width."""
    height, width = image_px
    sheet = (_FOLDER / "page.css").read_text(encoding="utf-8")
    return f":root {{ --shape: {width} / {height}; }}\n{sheet}"


def script() -> str:
    """What runs in the browser once the page has loaded."""
    return (_FOLDER / "page.js").read_text(encoding="utf-8")


def theme() -> gr.themes.Base:
    """Warm greys, one accent, system fonts."""
    return gr.themes.Base(
        primary_hue=_EMBER,
        secondary_hue=_EMBER,
        neutral_hue="stone",
        radius_size="md",
        text_size="md",
        font=list(_SANS),
        font_mono=list(_MONO),
    ).set(
        body_background_fill="#faf8f5",
        body_background_fill_dark="#161412",
        body_text_color="#23201c",
        body_text_color_dark="#ece7e1",
        body_text_color_subdued="#6a645c",
        body_text_color_subdued_dark="#a59d93",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#1f1c19",
        background_fill_secondary="#f3efe9",
        background_fill_secondary_dark="#292521",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1f1c19",
        block_border_color="#e6dfd6",
        block_border_color_dark="#38332d",
        border_color_primary="#e0d8cd",
        border_color_primary_dark="#3d3731",
        block_border_width="1px",
        block_shadow="none",
        block_shadow_dark="none",
        block_label_text_color="#6a645c",
        block_label_text_color_dark="#a59d93",
        block_title_text_color="#3a352f",
        block_title_text_color_dark="#d9d2c9",
        block_info_text_color="#6a645c",
        block_info_text_color_dark="#a59d93",
        input_background_fill="#ffffff",
        input_background_fill_dark="#171513",
        input_border_width="1px",
        input_border_color="#d5ccc0",
        input_border_color_dark="#463f38",
        input_border_color_focus="#c43f19",
        input_border_color_focus_dark="#fb7a55",
        button_primary_background_fill="#c43f19",
        button_primary_background_fill_hover="#a03314",
        button_primary_background_fill_dark="#c43f19",
        button_primary_background_fill_hover_dark="#d0451c",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        button_secondary_background_fill="#f3efe9",
        button_secondary_background_fill_hover="#e8e1d7",
        button_secondary_background_fill_dark="#2c2824",
        button_secondary_background_fill_hover_dark="#3a342e",
        button_secondary_text_color="#23201c",
        button_secondary_text_color_dark="#ece7e1",
        button_cancel_background_fill="#23201c",
        button_cancel_background_fill_hover="#45403a",
        button_cancel_background_fill_dark="#ece7e1",
        button_cancel_background_fill_hover_dark="#ffffff",
        button_cancel_text_color="#ffffff",
        button_cancel_text_color_dark="#161412",
        slider_color="#c43f19",
        slider_color_dark="#fb7a55",
        checkbox_background_color_selected="#c43f19",
        checkbox_background_color_selected_dark="#c43f19",
    )
