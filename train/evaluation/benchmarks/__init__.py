"""One small file per benchmark."""

from typing import Final

from macco.train.evaluation.benchmarks.aro import AroAttribution, AroRelation
from macco.train.evaluation.benchmarks.base import Benchmark
from macco.train.evaluation.benchmarks.bivlc import BiVlc
from macco.train.evaluation.benchmarks.ccneg import CcNeg
from macco.train.evaluation.benchmarks.cola import Cola
from macco.train.evaluation.benchmarks.colorswap import ColorSwap
from macco.train.evaluation.benchmarks.crepe import Crepe
from macco.train.evaluation.benchmarks.demo import Demo
from macco.train.evaluation.benchmarks.eqben import EqBen
from macco.train.evaluation.benchmarks.half_truths import HalfTruths
from macco.train.evaluation.benchmarks.mmvp_vlm import MmvpVlm
from macco.train.evaluation.benchmarks.negbench import NegBench
from macco.train.evaluation.benchmarks.order import CocoOrder, Flickr30kOrder
from macco.train.evaluation.benchmarks.sugarcrepe import SugarCrepe
from macco.train.evaluation.benchmarks.sugarcrepe_pp import SugarCrepePP
from macco.train.evaluation.benchmarks.svo_probes import SvoProbes
from macco.train.evaluation.benchmarks.valse import Valse
from macco.train.evaluation.benchmarks.vlchecklist import VlCheckList
from macco.train.evaluation.benchmarks.whatsup import WhatsUp
from macco.train.evaluation.benchmarks.winoground import Winoground

BENCHMARKS: Final[dict[str, type[Benchmark]]] = {
    benchmark.name: benchmark
    for benchmark in (
        AroRelation,
        AroAttribution,
        CocoOrder,
        Flickr30kOrder,
        SugarCrepe,
        SugarCrepePP,
        Winoground,
        Valse,
        VlCheckList,
        WhatsUp,
        Cola,
        BiVlc,
        ColorSwap,
        EqBen,
        MmvpVlm,
        SvoProbes,
        Crepe,
        NegBench,
        CcNeg,
        HalfTruths,
        Demo,
    )
}
