"""Which models can be named, what is known of them, which are here, and how to get the others."""

from typing import Any, Final, NamedTuple

from macco.pipeline.errors import UserError


class Known(NamedTuple):
    """What others have published of a model; None where no source was found that says it."""

    name: str
    licence: str | None
    size: str | None = (
        None  # of its weights; parameters: counted in its architecture, where no file's size is known
    )
    lvis: str | None = None  # detector: average precision of boxes on LVIS, not trained on unless said
    source: str | None = None  # of the figure
    note: str | None = None
    figure: str | None = None  # parser


_MM: Final = "github.com/open-mmlab/mmdetection, configs/mm_grounding_dino/README.md"
_LLMDET: Final = "github.com/iSEE-Laboratory/LLMDet, README.md"
_OMDET: Final = "github.com/om-ai-lab/OmDet, README.md"
_SAM3: Final = "github.com/facebookresearch/sam3, README.md"
_SPACY: Final = "github.com/explosion/spacy-models, meta/{}-3.8.0.json"
_FACTUAL: Final = "github.com/zhuang-li/FactualSceneGraph, README.md"
_LAS: Final = "LAS {} on OntoNotes 5"
_APACHE: Final = "Apache-2.0"
_MIT: Final = "MIT"

DETECTORS: Final = (
    Known("tiny", _APACHE, "3 MB", note="knows the drawn demo corpus alone"),
    Known("none", _APACHE, note="text only: no box of anything"),
    Known("boxes:FILE", None, note="boxes made elsewhere: Parquet or COCO JSON"),
    Known("groundingdino:swint", _APACHE, "172M parameters", "28.8 (minival)", _MM),
    Known("groundingdino:swinb", _APACHE, "232M parameters"),
    Known("transformers:IDEA-Research/grounding-dino-tiny", _APACHE, "689 MB", "28.8 (minival)", _MM),
    Known("transformers:IDEA-Research/grounding-dino-base", _APACHE, "232M parameters"),
    Known(
        "transformers:openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg", None, "172M parameters",
        "35.7 (minival)", _MM, "the code that it was trained by, mmdetection, is under Apache-2.0",
    ),
    Known("transformers:iSEE-Laboratory/llmdet_tiny", _APACHE, "173M parameters", "44.7 (minival)", _LLMDET),
    Known("transformers:iSEE-Laboratory/llmdet_base", _APACHE, "893 MB", "48.3 (minival)", _LLMDET),
    Known("transformers:iSEE-Laboratory/llmdet_large", _APACHE, "1.28 GB", "51.1 (minival)", _LLMDET),
    Known("transformers:google/owlv2-base-patch16-ensemble", _APACHE, "620 MB"),
    Known("transformers:google/owlv2-large-patch14-ensemble", _APACHE, "438M parameters"),
    Known("transformers:omlab/omdet-turbo-swin-tiny-hf", _APACHE, "462 MB", "30.3", _OMDET),
    Known(
        "transformers:facebook/sam3", "SAM License", "0.9B parameters", "53.6", _SAM3,
        "its licence must be accepted on its page first; transformers 5",
    ),
    Known(
        "transformers:florence-community/Florence-2-base", _MIT, "0.23B parameters",
        note="writes places, gives no scores: those of its tokens stand for them",
    ),
    Known("transformers:florence-community/Florence-2-large", _MIT, "0.77B parameters"),
)  # fmt: skip
PARSERS: Final = (
    Known(
        "en_caption", "CC BY-SA 4.0", "5.6 MB", figure="LAS 80.4 on UD English EWT, gold tokens",
        source="its own README.md, in macco/preprocess/models/en_caption",
    ),
    *(
        Known(name, _MIT, size, figure=_LAS.format(las), source=_SPACY.format(name))
        for name, size, las in (
            ("en_core_web_sm", "12 MB", "89.9"), ("en_core_web_md", "31 MB", "90.0"),
            ("en_core_web_lg", "382 MB", "90.2"), ("en_core_web_trf", "436 MB", "93.8"),
        )
    ),
    Known(
        "factual:lizhuang144/flan-t5-base-VG-factual-sg", _MIT, "248M parameters",
        figure="SPICE 93.27, set match 81.37 on FACTUAL, random split", source=_FACTUAL,
    ),
)  # fmt: skip
NOT_FOUND: Final = "not found"


def list_models() -> list[dict[str, Any]]:
    """One row per model: kind, name, whether it is here, the command that gets it, and what is known of it."""
    from macco.preprocess.detectors import check_detector
    from macco.preprocess.graph.parsers import check_parser
    from macco.preprocess.plugins import DETECTORS as DETECTOR_GROUP
    from macco.preprocess.plugins import PARSERS as PARSER_GROUP
    from macco.preprocess.plugins import plugins

    rows = [_row("parser", known.name, check_parser) | _published(known, "figure") for known in PARSERS]
    rows += [_row("parser", name, check_parser) for name in plugins(PARSER_GROUP)]
    for known in DETECTORS:
        more = _published(known, "lvis")
        if known.name == "boxes:FILE":
            rows.append({"kind": "detector", **more})
        else:
            rows.append(_row("detector", known.name, check_detector) | more)
    return [*rows, *(_row("detector", name, check_detector) for name in plugins(DETECTOR_GROUP))]


def _published(known: Known, figure: str) -> dict[str, Any]:
    """What is known of a model; of a network, what was looked for and not found is said, too."""
    found = {name: value for name, value in known._asdict().items() if value is not None}
    if known.name in ("tiny", "none", "boxes:FILE"):
        return found
    missing = {"licence": f"{NOT_FOUND} for this checkpoint: see its page", "size": NOT_FOUND}
    missing[figure] = "no published figure was found for this checkpoint"
    return {name: words for name, words in missing.items() if name not in found} | found


def _row(kind: str, name: str, check: Any) -> dict[str, Any]:
    try:
        check(name)
    except UserError as missing:
        return {"kind": kind, "name": name, "here": False, "get": str(missing)}
    return {"kind": kind, "name": name, "here": True}
