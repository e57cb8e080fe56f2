"""The page as text: with its files beside it, or with all that it needs inside."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

SCRIPTS: Final = ("figure.js", "app.js")
_OFFLINE: Final = ("figure.js", "offline.js", "app.js")
_STYLE, _SCRIPT = "<!--style-->", "<!--script-->"


@cache
def static(name: str) -> str:
    """A file that the page is made of."""
    return (files("macco.pipeline.page") / "static" / name).read_text("utf-8")


@cache
def linked(name: str, scripts: Sequence[str]) -> str:
    """A page that asks for its style and scripts by name."""
    asked = "".join(f'<script src="{script}" defer></script>' for script in scripts)
    return static(name).replace(_STYLE, '<link rel="stylesheet" href="style.css">').replace(_SCRIPT, asked)


def whole(store: Mapping[str, Any], figures: Sequence[Mapping[str, Any]]) -> str:
    """One file with the page and some figures, which asks for nothing and runs no script but its own."""
    style, script = static("style.css"), "\n".join(map(static, _OFFLINE))
    # Inside a script element only this letter could end it.
    data = json.dumps({"store": store, "figures": figures}, ensure_ascii=False).replace("<", "\\u003c")
    policy = f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>'
    body = f'<script type="application/json" id="data">{data}</script>\n<script>{script}</script>'
    return static("index.html").replace(_STYLE, head).replace(_SCRIPT, body)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
