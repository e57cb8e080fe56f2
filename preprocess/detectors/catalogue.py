"""Which models can be named, what is known of them, which are here, and how to get the others."""

from typing import Any, Final, NamedTuple

from macco.pipeline.errors import UserError


class Known(NamedTuple):
    """What others have published of a detector; None where no source was found that says it."""

    name: str
    licence: str | None
    size: str | None = None  # of its weights
    lvis: str | None = None  # average precision of boxes on LVIS, which they were not trained on unless said
    source: str | None = None  # of that figure
    note: str | None = None


_MM: Final = "github.com/open-mmlab/mmdetection, configs/mm_grounding_dino/README.md"
_LLMDET: Final = "github.com/iSEE-Laboratory/LLMDet, README.md"
_OMDET: Final = "github.com/om-ai-lab/OmDet, README.md"
_SAM3: Final = "github.com/facebookresearch/sam3, README.md"
_APACHE: Final = "Apache-2.0"

DETECTORS: Final = (
    Known("tiny", _APACHE, "3 MB", note="knows the drawn demo corpus alone"),
    Known("none", _APACHE, note="text only: no box of anything"),
    Known("boxes:FILE", None, note="boxes made elsewhere: Parquet or COCO JSON"),
    Known("groundingdino:swint", _APACHE, None, "28.8 (minival)", _MM),
    Known("groundingdino:swinb", _APACHE),
    Known("transformers:IDEA-Research/grounding-dino-tiny", _APACHE, "689 MB", "28.8 (minival)", _MM),
    Known("transformers:IDEA-Research/grounding-dino-base", _APACHE),
    Known(
        "transformers:openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg", None, None, "35.7 (minival)", _MM
    ),
    Known("transformers:iSEE-Laboratory/llmdet_tiny", _APACHE, "173M parameters", "44.7 (minival)", _LLMDET),
    Known("transformers:iSEE-Laboratory/llmdet_base", _APACHE, "893 MB", "48.3 (minival)", _LLMDET),
    Known("transformers:iSEE-Laboratory/llmdet_large", _APACHE, "1.28 GB", "51.1 (minival)", _LLMDET),
    Known("transformers:google/owlv2-base-patch16-ensemble", _APACHE, "620 MB"),
    Known("transformers:google/owlv2-large-patch14-ensemble", _APACHE),
    Known("transformers:omlab/omdet-turbo-swin-tiny-hf", _APACHE, "462 MB", "30.3", _OMDET),
    Known(
        "transformers:facebook/sam3", None, "0.9B parameters", "53.6", _SAM3,
        "its licence must be accepted on its page first; transformers 5",
    ),
    Known(
        "transformers:florence-community/Florence-2-base", None, "0.23B parameters",
        note="writes places, gives no scores: those of its tokens stand for them",
    ),
    Known("transformers:florence-community/Florence-2-large", None, "0.77B parameters"),
)  # fmt: skip
PARSERS: Final = (
    *("en_caption", "en_core_web_sm", "en_core_web_md", "en_core_web_lg", "en_core_web_trf"),
    "factual:lizhuang144/flan-t5-base-VG-factual-sg",
)


def list_models() -> list[dict[str, Any]]:
    """One row per model: kind, name, whether it is here, the command that gets it, and what is known of it."""
    from macco.preprocess.detectors import check_detector
    from macco.preprocess.graph.parsers import check_parser
    from macco.preprocess.plugins import DETECTORS as DETECTOR_GROUP
    from macco.preprocess.plugins import PARSERS as PARSER_GROUP
    from macco.preprocess.plugins import plugins

    rows = [_row("parser", name, check_parser) for name in [*PARSERS, *plugins(PARSER_GROUP)]]
    for known in DETECTORS:
        more = {name: value for name, value in known._asdict().items() if value is not None}
        if "lvis" not in more and known.name.startswith(("transformers", "groundingdino")):
            more["lvis"] = "no published figure was found for this checkpoint"
        if known.name == "boxes:FILE":
            rows.append({"kind": "detector", **more})
        else:
            rows.append(_row("detector", known.name, check_detector) | more)
    return [*rows, *(_row("detector", name, check_detector) for name in plugins(DETECTOR_GROUP))]


def _row(kind: str, name: str, check: Any) -> dict[str, Any]:
    try:
        check(name)
    except UserError as missing:
        return {"kind": kind, "name": name, "here": False, "get": str(missing)}
    return {"kind": kind, "name": name, "here": True}
