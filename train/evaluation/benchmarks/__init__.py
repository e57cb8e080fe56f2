"""One small file per benchmark."""

from typing import Final

from train.evaluation.benchmarks.aro import AroAttribution, AroRelation
from train.evaluation.benchmarks.base import Benchmark
from train.evaluation.benchmarks.bivlc import BiVlc
from train.evaluation.benchmarks.cola import Cola
from train.evaluation.benchmarks.demo import Demo
from train.evaluation.benchmarks.order import CocoOrder, Flickr30kOrder
from train.evaluation.benchmarks.sugarcrepe import SugarCrepe
from train.evaluation.benchmarks.sugarcrepe_pp import SugarCrepePP
from train.evaluation.benchmarks.valse import Valse
from train.evaluation.benchmarks.vlchecklist import VlCheckList
from train.evaluation.benchmarks.whatsup import WhatsUp
from train.evaluation.benchmarks.winoground import Winoground

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
        Demo,
    )
}
