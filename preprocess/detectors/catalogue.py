"""Which models can be named, which of them are here, and how to get the others."""

from typing import Any

from macco.pipeline.errors import UserError

DETECTORS = (
    "tiny",
    "groundingdino:swint",
    "groundingdino:swinb",
    "transformers:IDEA-Research/grounding-dino-tiny",
    "transformers:IDEA-Research/grounding-dino-base",
    "transformers:openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg",
    "transformers:iSEE-Laboratory/llmdet_tiny",
)
PARSERS = ("en_caption", "en_core_web_sm", "en_core_web_md", "en_core_web_lg", "en_core_web_trf")


def list_models() -> list[dict[str, Any]]:
    """One row per model: kind, name, whether it is here, and the command that gets it."""
    from macco.preprocess.detectors import check_detector
    from macco.preprocess.graph.language import check_pipeline

    rows = []
    for kind, names, check in (("parser", PARSERS, check_pipeline), ("detector", DETECTORS, check_detector)):
        for name in names:
            try:
                check(name)
                rows.append({"kind": kind, "name": name, "here": True})
            except UserError as missing:
                rows.append({"kind": kind, "name": name, "here": False, "get": str(missing)})
    return rows
