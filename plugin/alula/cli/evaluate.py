"""``alula evaluate``."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from alula.catalog.schema import ScalarField
from alula.cli.evaluate_judged import check_options, check_unjudged, open_judged, show_judged
from alula.cli.evaluation_options import (
    build_timeout_option,
    encoders_option,
    figures_option,
    metric_option,
    query_options,
)
from alula.cli.options import Command, OutputFile, connection_options, console, format_option, show_json
from alula.collection import Collection
from alula.encoders import Encoder, load_encoder
from alula.errors import AlulaError, ServerError, UnsupportedError, UsageError
from alula.evaluation.bm25 import Bm25
from alula.evaluation.evaluate import (
    Budget,
    IndexComparison,
    Measured,
    common_metric,
    evaluate_collection,
    index_type_of,
    samples,
)
from alula.evaluation.judged import EQUAL, JudgedEvaluation, JudgedFiles, evaluate_judged
from alula.evaluation.native import BUILD_TIMEOUT
from alula.evaluation.native_types import NATIVE, Params, native_name, parse_natives
from alula.evaluation.queries import QueryOptions, QuerySet, make_queries
from alula.evaluation.results import Evaluation
from alula.evaluation.row_source import RowSource, collection_rows, file_rows, rows_of_collection_files
from alula.evaluation.settings import Settings, show_settings
from alula.index_types import Option, index_types
from alula.milvus import Server, connect, version
from alula.progress import Progress, progress_bar

_RIVALS = "HNSW,IVF_SQ8"


def _sweep_options(command: Command) -> Command:
    """Add an option with several values for each search option of each index type."""
    declared = {option.name: option for kind in index_types().values() for option in kind.all_search_options}

    def run(*args: Any, **given: Any) -> Any:
        texts = {name: given.pop(name) for name in declared}
        sweep = {name: _values(declared[name], text) for name, text in texts.items() if text is not None}
        return command(*args, sweep=sweep, **given)

    wrapped: Command = run
    wrapped.__doc__, wrapped.__dict__ = command.__doc__, dict(getattr(command, "__dict__", {}))
    for option in reversed(declared.values()):
        flag = f"--{option.name.replace('_', '-')}"
        note = f"Values to try, with commas between: {option.help}"
        wrapped = click.option(flag, option.name, metavar="LIST", help=note)(wrapped)
    return wrapped


def _values(option: Option, text: str) -> list[Any]:
    """Parse a list of values; ``all`` means the option is not given."""
    found: list[Any] = []
    for part in (word.strip() for word in text.split(",")):
        if part == "all":
            found.append(None)
        elif option.value_type is int and not part.isdecimal():
            raise UsageError(f"--{option.name} takes numbers with commas between, or 'all', and {part!r} is neither.")
        else:
            found.append(option.check(int(part) if option.value_type is int else part))
    return found


@click.command("evaluate")
@click.argument("names", metavar="[COLLECTION]...", nargs=-1)
@connection_options(required=False)
@encoders_option(
    "The collection's encoder file; repeatable for several collections, or to compare encoders without one."
)
@query_options
@click.option(
    "--qrels",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Judgements of the queries, as lines of query id, row and relevance (BEIR, TREC): measure nDCG@10, MRR@10 and "
    "recall@100 instead of the recall of true neighbours. Several collections are fused too, as hybrid searches do.",
)
@click.option(
    "--bm25",
    metavar="COLLECTION",
    help="With --qrels: a collection of the same rows with a BM25 function (Milvus 2.5 and later, Milvus Lite 2.5), to "
    "search by the queries' texts and to fuse with the others.",
)
@click.option(
    "--weight",
    "weights",
    type=click.FloatRange(0, 1),
    multiple=True,
    default=(EQUAL,),
    show_default=True,
    help="With --qrels: the weight of the first of two collections in their weighted fusion; the second has the rest. "
    "Repeatable. Milvus makes .75 of a cosine of .5, and .97 of a sparse text model's inner product of 10: with equal "
    "weights the rows of that model come first. Choose by queries other than those you report.",
)
@click.option("--sample", type=click.IntRange(2), default=200, show_default=True, help="Rows to draw as queries.")
@click.option(
    "--compare",
    multiple=True,
    metavar="LIST",
    help=f"Milvus's own index types to measure on the raw vectors, with commas between: {', '.join(NATIVE)}, or with "
    "build parameters HNSW:M=32, HNSW_SQ:sq_type=SQ4U:refine=true:refine_type=FP16. FAISS takes a factory string of "
    "faiss, to the end of LIST: FAISS:IVF1024,PQ48x4fs,RFlat. A type that the server lacks is named with its answer. "
    f"Repeatable. Without a collection: {_RIVALS}; 'none' for none.",
)
@click.option("--layout", "layouts", multiple=True, help="Without a collection: DRQ's layouts to try; repeatable.")
@metric_option
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.05),
    default=2.0,
    show_default=True,
    help="Seconds that concurrent clients search with each setting.",
)
@click.option("--clients", type=click.IntRange(1, 64), default=4, show_default=True, help="Concurrent clients.")
@build_timeout_option(BUILD_TIMEOUT)
@_sweep_options
@figures_option
@click.option("--report", type=OutputFile(), help="Write a page with plots (.html) that needs no network.")
@format_option
def command(
    *,
    names: tuple[str, ...],
    server: Server | None,
    encoders: tuple[Path, ...],
    queries: Path | None,
    query_column: str | None,
    vectors: str | None,
    vector_column: str | None,
    truth: Path | None,
    k: int,
    seed: int,
    quiet: bool,
    qrels: Path | None,
    bm25: str | None,
    weights: tuple[float, ...],
    sample: int,
    compare: tuple[str, ...],
    layouts: tuple[str, ...],
    metric: str | None,
    seconds: float,
    clients: int,
    build_timeout: float,
    sweep: Mapping[str, Sequence[Any]],
    output: Path | None,
    report: Path | None,
    output_format: str,
) -> None:
    """Measure recall, speed and size of a COLLECTION, or of index types on vectors.

    The figures are recall, latency, throughput and bytes per row; with judged queries (--qrels) measures of ranking
    quality, for one collection or several, and beside them exact search, BM25 (--bm25) and hybrid searches of two.

    \b
    alula evaluate words --uri http://localhost:19530 --encoder words-drq.onnx
    alula evaluate words --uri ... --encoder words-drq.onnx --candidates 100,500 --bits 64,128 --rerank all,0
    alula evaluate --vectors rows.npy --encoder drq.onnx --encoder flops.onnx --uri ... --report report.html
    alula evaluate docs --uri ... --encoder docs-drq.onnx --queries queries.jsonl --qrels qrels/test.tsv

    With a collection nothing is written to the server, unless --compare is given. Without one, rows are loaded into
    collections that are dropped again; without --uri into an embedded database that is removed.
    """
    loaded = [load_encoder(path) for path in encoders]
    if qrels is None:
        check_unjudged()
    render = _report_writer(judged=qrels is not None) if report is not None else None
    budget = Budget(seconds, clients, sweep, build_timeout)
    options = QueryOptions(queries, query_column, sample, seed, k, truth)
    evaluation: Evaluation | JudgedEvaluation
    with progress_bar(quiet=quiet, one_line=True) as progress, temporary_server(server) as opened:
        if qrels is not None:
            single = vectors is not None or bool(compare)
            at, asked = check_options(server, names, queries, single=single)
            collections = [open_judged(at, name, loaded, vectors, vector_column) for name in names]
            evaluation = evaluate_judged(
                collections,
                JudgedFiles(asked, query_column, qrels),
                budget,
                rivals=_rivals(compare, "none"),
                bm25=None if bm25 is None else Bm25.open(at, bm25),
                weights=weights,
                seed=seed,
                progress=progress,
            )
        elif names:
            if server is None:
                raise UsageError("Say where the collection is, with --uri.")
            if len(names) > 1:
                raise UsageError("Several collections are compared by judged queries; give --queries and --qrels.")
            if metric is not None or layouts:
                raise UsageError(
                    "A collection has its own metric and layout; leave --metric and --layout out, which are for "
                    "--vectors without a collection."
                )
            run = EvaluateRun(opened, vectors, vector_column, _rivals(compare, "none"), budget, options, progress)
            evaluation = _collection(run, names[0], loaded)
        else:
            if vectors is None:
                raise UsageError("Give a collection to evaluate, or vectors to compare index types on with --vectors.")
            run = EvaluateRun(opened, vectors, vector_column, _rivals(compare, _RIVALS), budget, options, progress)
            evaluation = _vectors(run, loaded, layouts, metric)
    if output is not None:
        output.write_text(json.dumps(evaluation.as_json(), indent=1, default=str, ensure_ascii=False) + "\n", "utf-8")
    if render is not None and report is not None:
        render(evaluation.as_json(), report)
    if output_format == "json":
        show_json(evaluation.as_json())
        return
    show_judged(evaluation) if isinstance(evaluation, JudgedEvaluation) else _show(evaluation)
    for path in filter(None, (output, report)):
        click.echo(f"Written: {path}")


def _report_writer(*, judged: bool) -> Callable[[Mapping[str, Any], Path], None]:
    """The function that writes the page; it needs an extra."""
    if judged:
        from alula.evaluation.judged_report import write_judged_report  # noqa: PLC0415

        return write_judged_report
    from alula.evaluation.report import write_report  # noqa: PLC0415

    return write_report


@contextmanager
def temporary_server(server: Server | None) -> Iterator[Server]:
    """The given server, or an embedded one in a temporary folder."""
    if server is not None:
        yield server
        return
    with tempfile.TemporaryDirectory(prefix="alula-") as folder, connect(str(Path(folder) / "evaluate.db")) as embedded:
        yield embedded


def _rivals(texts: tuple[str, ...], default: str) -> list[tuple[str, Params]]:
    given = texts or (default,)
    return [] if given == ("none",) else [rival for text in given for rival in parse_natives(text)]


@dataclass(frozen=True)
class EvaluateRun:
    """One run of the command, without the collection or the encoders."""

    server: Server
    vectors: str | None
    vector_column: str | None
    rivals: Sequence[tuple[str, Params]]
    budget: Budget
    options: QueryOptions
    progress: Progress

    def compare(self, comparison: IndexComparison, query_set: QuerySet, outcomes: list[Measured]) -> dict[str, str]:
        """Measure Milvus's index types; append to `outcomes`, return the rejected ones."""
        refused = {}
        for rival, params in self.rivals:
            try:
                outcomes.append(comparison.native(rival, params, query_set.queries))
            except ServerError as error:
                refused[native_name(rival, params)] = str(error)
        return refused

    def evaluation(
        self,
        title: str,
        query_set: QuerySet,
        *,
        metric: str,
        rows: int,
        outcomes: Sequence[Measured],
        refused: Mapping[str, str],
        columns: Any,
    ) -> Evaluation:
        """Collect the results; arguments as of `Evaluation` and `samples`."""
        return Evaluation(
            title=title,
            metric=metric,
            k=query_set.queries.k,
            rows=rows,
            dim=query_set.queries.vectors.shape[1],
            queries=len(query_set.queries),
            queries_from=query_set.queries_from,
            truth_from=query_set.truth_from,
            server=version(self.server),
            seed=self.options.seed,
            subjects=[outcome.subject for outcome in outcomes],
            refused=refused,
            samples=samples(query_set.queries, outcomes, columns),
        )


def _collection(run: EvaluateRun, name: str, encoders: Sequence[Encoder]) -> Evaluation:
    if len(encoders) != 1:
        raise UsageError("Give the collection's encoder with --encoder, and no other.")
    collection = Collection.open(run.server, name, encoder=encoders[0])
    rows, query_set = queries_of_collection(collection, run.vectors, run.vector_column, run.options, run.progress)
    if run.rivals and rows is None:
        raise UsageError("--compare needs the vectors, and the collection keeps none; give them with --vectors.")
    field, count = collection.lowering.field, collection.count()
    outcomes = [evaluate_collection(collection, query_set.queries, run.budget, count, run.progress)]
    refused = {}
    if rows is not None:
        about = (collection.primary_key, field.metric, field.dim, count)
        refused = run.compare(IndexComparison(run.server, rows, *about, run.budget, run.progress), query_set, outcomes)
    shown = [scalar.name for scalar in collection.fields]
    return run.evaluation(
        f"Collection {name}",
        query_set,
        metric=field.metric,
        rows=count,
        outcomes=outcomes,
        refused=refused,
        columns=lambda keys: collection.fetch(keys, shown),
    )


def queries_of_collection(
    collection: Collection,
    vectors: str | None,
    vector_column: str | None,
    options: QueryOptions,
    progress: Progress,
) -> tuple[RowSource | None, QuerySet]:
    """Open the rows of a collection, if they can be read, and prepare queries."""
    field = collection.lowering.field
    if vectors is not None:
        rows: RowSource | None = rows_of_collection_files(collection, vectors, vector_column)
    elif field.storage == "dropped" and options.truth is not None and options.queries is not None:
        rows = None
    else:
        rows = collection_rows(collection)
    encoder = collection.lowering.encoder
    key_type = str if collection.primary_key.data_type == "VARCHAR" else int
    return rows, make_queries(rows, options, encoder=encoder, metric=field.metric, key_type=key_type, progress=progress)


def _vectors(run: EvaluateRun, encoders: Sequence[Encoder], layouts: Sequence[str], metric: str | None) -> Evaluation:
    tries = [(encoder, options) for encoder in encoders for options in _layouts(encoder, layouts)]
    chosen = common_metric(encoders, metric)
    first = encoders[0] if encoders else None
    rows = file_rows(str(run.vectors), run.vector_column, first.info.input_dim if first else None)
    query_set = make_queries(rows, run.options, encoder=first, metric=chosen, progress=run.progress)
    dim = query_set.queries.vectors.shape[1]
    count = rows.count if rows.count is not None else sum(len(keys) for keys, _ in rows.blocks())
    key = ScalarField("alula_row", "INT64")
    comparison = IndexComparison(run.server, rows, key, chosen, dim, count, run.budget, run.progress)
    outcomes: list[Measured] = []
    refused: dict[str, str] = {}
    for encoder, options in tries:
        try:
            outcomes.append(comparison.learned(encoder, options, query_set.queries))
        except (ServerError, UnsupportedError) as error:
            refused[" ".join((encoder.path.name, *options.values()))] = str(error)
    refused |= run.compare(comparison, query_set, outcomes)
    if not outcomes:
        raise AlulaError("Nothing could be measured. " + " ".join(refused.values()))
    title = f"Index types on {Path(rows.source.name).name}"
    return run.evaluation(
        title, query_set, metric=chosen, rows=count, outcomes=outcomes, refused=refused, columns=rows.columns
    )


def _layouts(encoder: Encoder, wanted: Sequence[str]) -> list[Settings]:
    """The create options to try: each layout, if the index type has layouts."""
    option = next((option for option in index_type_of(encoder).create_options if option.name == "layout"), None)
    return [{"layout": layout} for layout in wanted or option.choices] if option else [{}]


def _show(evaluation: Evaluation) -> None:
    """Print the figures as a table, each index from fast to slow settings."""
    click.echo(f"{evaluation.title} at {evaluation.server}: {evaluation.rows:,} rows x {evaluation.dim}, ", nl=False)
    click.echo(f"{evaluation.metric}; {evaluation.queries_from}.")
    table = Table(title=f"recall@{evaluation.k} with its 95 % interval", title_justify="left")
    for head in ("index", "search options"):
        table.add_column(head, overflow="fold")
    several = max((point.clients for subject in evaluation.subjects for point in subject.points), default=1)
    on_disk = any(subject.sizes.disk for subject in evaluation.subjects)
    heads = [f"recall@{evaluation.k}", "p50 ms", "p95", "p99", "QPS", f"QPS x{several}", "B/row memory"]
    heads += ["disk"] if on_disk else []
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for subject in evaluation.subjects:
        sizes = [f"{subject.sizes.memory_bytes:.0f}", *([f"{subject.sizes.disk_bytes:.0f}"] if on_disk else [])]
        for point in sorted(subject.points, key=lambda point: point.p50):
            times = [f"{value:.2f}" for value in (point.p50, point.p95, point.p99)]
            rates = [f"{rate:.0f}" if rate else "" for rate in (point.qps, point.qps_clients)]
            figures = (str(point.recall), *times, *rates, *sizes)
            table.add_row(Text(subject.name), Text(show_settings(point.settings)), *figures)
        table.add_section()
    console().print(table)
    for subject in evaluation.subjects:
        parts = [f"{name} {size:.0f}" for name, size in subject.sizes.memory.items()]
        disk = [f"{name} {size:.0f}" for name, size in subject.sizes.disk.items()]
        click.echo(
            f"{subject.name}: bytes per row in memory: {', '.join(parts)}"
            + (f"; on disk: {', '.join(disk)}" if disk else "")
        )
        for note in subject.notes:
            click.echo(f"  Note: {note}.")
    for name, reason in evaluation.refused.items():
        click.echo(f"Not measured: {name}. {reason}")
