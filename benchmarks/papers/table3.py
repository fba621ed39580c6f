"""Table 3: one labelled DRQ training for all lengths, against one for each length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import torch
from torch import nn

from alula_exporters import DrqConfig, TrainingData
from alula_exporters.backbones import VectorBackbone
from alula_exporters.choices import LabelLoss, Mode
from alula_exporters.dense import BackboneConfig
from benchmarks.papers.datasets import spread, unit
from benchmarks.papers.networks import AS_LONG, DENSE, Network, dense_networks
from benchmarks.papers.quantisers import BEAM, QUANTISERS, Quantised, quantise, train_codes
from benchmarks.papers.unseen import Classes, Figures, load_classes
from benchmarks.report import Report, say

TITLE = "DRQ with labels: one training for all lengths, and one for each"
ANSWERS = """\
The question: codes of several lengths are wanted of a network that learns with them. Is one training of Deep Recurrent
Quantization (Song et al., IJCAI 2019), whose shorter codes are prefixes of the longest, as good as a training for each
length, and what does it save? The rows are all glosses of WordNet as MiniLM's vectors; the class of a noun's gloss is
its direct hypernym. 1,300 classes are trained on. Of 325 others five glosses each are queries, and the rest of them is
searched for among all other glosses of WordNet. A found row is right if it has the query's class: "recall@1" is the
share of queries whose best row is right, "P@4" the share of right rows among the first 4. Queries keep their float
vector; only the searched rows are codes, ranked by the cosine of the query to the row's reconstruction (PQ and OPQ by
L2, as faiss does).

All start from one network for a seed: two layers on MiniLM's vectors that end in 128 numbers, trained with the paper's
adaptive margin loss, in which the mean of a class's given vectors stands in the place of the word vector of its name.
DRQ goes on training it by its labels while it learns codes. "Default, once" has codebooks for half of its levels, which
the others turn and scale; "shared, once" has the paper's structure, one codebook and a scale per level; "paper, once"
has that structure and the paper's losses and stages of the codes; "default, each" and "separate, each" train network
and codes for each length, "separate" with a codebook per level. "Dense" ranks by the network's vectors; "dense, as
long" has gone on training for as many steps as DRQ did. faiss's PQ, OPQ, RQ (beam 5) and ITQ's signs quantise the
vectors of "dense, as long" afterwards, with a model for each length.

"Numbers" are those of the codes for all lengths together, without the networks, DRQ's counted in its encoder file;
"networks" is how many of these are trained and must be served. "Seconds" are of one seed's whole training, all lengths,
the network's included: what the paper's claim of one training is about. Figures with ± are means and standard
deviations over seeds.
"""
SEEDS = (0, 1, 2)

LEVELS = (1, 2, 4, 6)
DIM = 128
HIDDEN = 1_024
EPOCHS = 12  # of the network alone, and again of network and codes
RATE = 2e-3  # of the network while codes learn
ONCE, EACH, SEPARATE, PAPER = "DRQ default, once", "DRQ default, each", "DRQ separate, each", "DRQ paper, once"
SHARED = "DRQ shared, once"
LOSS: LabelLoss = "adaptive-margin"
TRAININGS: dict[str, tuple[Mode, tuple[tuple[int, ...], ...]]] = {
    ONCE: ("default", (LEVELS,)),
    SHARED: ("shared", (LEVELS,)),
    PAPER: ("paper", (LEVELS,)),
    EACH: ("default", tuple((level,) for level in LEVELS)),
    SEPARATE: ("separate", tuple((level,) for level in LEVELS)),
}
QUICK_TRAININGS = (ONCE, PAPER, EACH)
BEHIND = 0.01  # recall@1 that one training may be behind one for each length ...
QUICK = 0.1  # ... and behind anything in a quick run, which trains nothing to its end


def measure(report: Report, *, quick: bool) -> None:
    """All methods, seed by seed."""
    classes = load_classes(quick)
    name = f"{len(classes.rows[0]):,} glosses, {len(classes.queries[0]):,} queries of unseen classes"
    dense: dict[str, list[Figures]] = {}
    results: dict[str, list[Quantised]] = {}
    for seed in SEEDS[:1] if quick else SEEDS:
        data = classes.data(seed)
        with report.part(f"dense networks, seed {seed}"):
            networks = _networks(data, quick, seed)
            for key, one in networks.items():
                dense.setdefault(key, []).append(classes.judge(*classes.embed(one.backbone)))
        say("  " + ", ".join(f"{key} {values[-1][1]:.3f}" for key, values in dense.items()))
        for method, run in _methods(classes, data, networks, quick, seed):
            with report.part(f"{method}, seed {seed}"):
                quantised = run()
            say(f"  {' '.join(f'{one[1]:.3f}' for one in quantised.found.values())}, {quantised.seconds:.0f} s")
            results.setdefault(method, []).append(quantised)
    _rows(report, name, dense, results)
    _picture(report, name, dense, results)
    _targets(report, results, quick)


def _networks(data: TrainingData, quick: bool, seed: int) -> dict[str, Network]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(data.dim, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, DIM)]
        untrained = VectorBackbone(nn.Sequential(*layers), data.dim)
    config = BackboneConfig(loss=LOSS, epochs=2 if quick else EPOCHS, batch=256, learning_rate=RATE, seed=seed)
    return dense_networks(untrained, data, config, config)


def _methods(
    classes: Classes, data: TrainingData, networks: Mapping[str, Network], quick: bool, seed: int
) -> Iterator[tuple[str, Callable[[], Quantised]]]:
    for method in QUICK_TRAININGS if quick else TRAININGS:
        mode, groups = TRAININGS[method]
        config = DrqConfig(
            mode=mode,
            loss=LOSS,
            beam=BEAM,
            epochs=2 if quick else EPOCHS,
            backbone_learning_rate=RATE,
            seed=seed,
        )
        yield method, partial(train_codes, classes, data, networks[DENSE], groups, config)
    long = networks[AS_LONG]
    vectors = (unit(long.backbone.embed(data.train)), *classes.embed(long.backbone))
    for name, make in QUANTISERS.items():
        yield name, partial(quantise, classes, vectors, make, LEVELS, long.seconds)


def _rows(report: Report, name: str, dense: dict[str, list[Figures]], results: dict[str, list[Quantised]]) -> None:
    for depth, what in ((1, "recall@1"), (4, "P@4")):
        table = f"{name}: {what}"
        for key, values in dense.items():
            report.row(table, method=key, float=spread([one[depth] for one in values]))
        for method, seeds in results.items():
            by_bits = {f"{8 * level} bits": spread([one.found[level][depth] for one in seeds]) for level in LEVELS}
            seconds = round(float(np.mean([one.seconds for one in seeds])))
            report.row(
                table,
                method=method,
                **by_bits,
                networks=seeds[0].networks,
                numbers=seeds[0].numbers,
                seconds=seconds,
            )


def _picture(report: Report, name: str, dense: dict[str, list[Figures]], results: dict[str, list[Quantised]]) -> None:
    lines: dict[str, list[tuple[float, float]]]
    lines = {method: [(8 * level, _mean(seeds, level)) for level in LEVELS] for method, seeds in results.items()}
    for key, values in dense.items():
        mean = float(np.mean([one[1] for one in values]))
        lines[key] = [(size, mean) for size in (8 * LEVELS[0], 8 * LEVELS[-1])]
    report.picture("table3", name, "bits of code", "recall@1", lines)


def _mean(seeds: list[Quantised], level: int, depth: int = 1) -> float:
    return float(np.mean([one.found[level][depth] for one in seeds]))


def _targets(report: Report, results: dict[str, list[Quantised]], quick: bool) -> None:
    for level in LEVELS:
        ours, what = _mean(results[ONCE], level), f"{8 * level} bits, recall@1: {ONCE}, over"
        report.at_least(f"{what} {EACH}", ours - _mean(results[EACH], level), -QUICK if quick else -BEHIND)
        after = {name: _mean(results[name], level) for name in QUANTISERS}
        best = max(after, key=lambda name: after[name])
        report.at_least(f"{what} the best of faiss's ({best})", ours - after[best], -QUICK if quick else 0.0)
        report.at_least(f"{what} {PAPER}", ours - _mean(results[PAPER], level), -QUICK if quick else 0.0)
    once, each = (float(np.mean([one.seconds for one in results[method]])) for method in (ONCE, EACH))
    report.target(f"Seconds of {ONCE}, over {EACH}", once / each, "<= 0.5", once <= 0.5 * each)
