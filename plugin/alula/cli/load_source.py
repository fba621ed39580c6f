"""Options of ``alula load`` for the source of the rows."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from alula.encoders import Encoder
from alula.errors import UsageError
from alula.ingest.collection_source import CollectionSource
from alula.ingest.target import Target
from alula.milvus import Server
from alula.sources import ColumnMapping, Source, read_mapping, spool_stdin
from alula.sources.encoder_inputs import column_of, open_rows

STDIN = "-"
STDIN_FORMATS = ("jsonl", "csv", "tsv", "txt")


@dataclass(frozen=True)
class SourceOptions:
    """The options for the source."""

    places: Sequence[str]
    vector_column: str | None
    text_column: str | None
    columns: Sequence[str]
    mapping_file: Path | None
    metadata: str | None
    stdin_format: str
    from_collection: str | None
    filter: str

    def open(self, target: Target, spool: Path) -> Source:
        """Open the source.

        Args:
            target: The collection to load into.
            spool: A path without ending for a copy of standard input.

        Raises:
            UsageError, DataError: If it cannot be opened.
        """
        encoder, mapping = target.lowering.encoder, self._mapping()
        vectors, texts = self.vector_column or mapping.vector, self.text_column or mapping.text
        if self.from_collection is not None:
            return self._open_collection(target.server, column_of(encoder, vectors, texts), encoder)
        if self.filter:
            raise UsageError("--filter is for --from-collection; filter files before loading them.")
        if not self.places:
            raise UsageError("Say what to load: files, a folder, a URL, - for standard input, or --from-collection.")
        places: Sequence[Any] = self.places
        if STDIN in places:
            if len(places) > 1:
                raise UsageError("Standard input (-) cannot be loaded together with files.")
            places = [_kept_stdin(_spool_file(spool, self.stdin_format))]
        return open_rows(
            encoder,
            places[0] if len(places) == 1 else places,
            vector_column=vectors,
            text_column=texts,
            mapping=mapping.columns,
            types=target.types,
            metadata=self.metadata,
        )

    def _mapping(self) -> ColumnMapping:
        mapping = read_mapping(self.mapping_file) if self.mapping_file else ColumnMapping({})
        columns = dict(mapping.columns)
        for text in self.columns:
            field, separator, column = text.partition("=")
            if not (field and separator and column):
                raise UsageError(f"--map is FIELD=COLUMN, and not {text!r}.")
            columns[field] = column
        return ColumnMapping(columns, mapping.vector, mapping.text)

    def _open_collection(self, server: Server, column: str | None, encoder: Encoder) -> Source:
        if self.places or self.metadata or self.columns or self.mapping_file:
            raise UsageError(
                "--from-collection takes no files, --metadata or --map; its fields go to the fields of their names."
            )
        field: dict[str, Any] = {"vector_field" if encoder.info.input == "vectors" else "text_field": column}
        return CollectionSource(
            server, str(self.from_collection), filter=self.filter, input=encoder.info.input, **field
        )


def _kept_stdin(path: Path) -> Path:
    """The copy of standard input, written now or by an interrupted run."""
    if not path.exists():
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("Nothing is piped into standard input; as in: gzip -dc rows.jsonl.gz | alula load NAME -")
        spool_stdin(path, sys.stdin.buffer)
    return path


def _spool_file(spool: Path, ending: str) -> Path:
    return spool.with_name(f"{spool.name}.stdin.{ending}")


def forget_stdin(spool: Path) -> None:
    """Remove the copy of standard input."""
    for ending in STDIN_FORMATS:
        _spool_file(spool, ending).unlink(missing_ok=True)


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets a `SourceOptions` as ``given``."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        names = ("places", "vector_column", "text_column", "columns", "mapping_file", "metadata", "stdin_format")
        taken = {name: options.pop(name) for name in (*names, "from_collection")}
        given = SourceOptions(**taken, filter=options.pop("expression"))
        return command(*args, given=given, **options)

    for option in reversed(
        (
            click.argument("places", metavar="[SOURCE]...", nargs=-1),
            click.option("--vector-column", help="The column with the vectors; by default the only list of numbers."),
            click.option("--text-column", help="The column with the texts; by default the only one of strings."),
            click.option(
                "--map",
                "columns",
                metavar="FIELD=COLUMN",
                multiple=True,
                help="Fill a field of the collection from a column of another name; repeatable.",
            ),
            click.option(
                "--mapping",
                "mapping_file",
                type=click.Path(path_type=Path, exists=True, dir_okay=False),
                help='The same in a TOML file: vector = "..." or text = "...", and [columns] with field = "column".',
            ),
            click.option(
                "--metadata", help="For arrays (.npy, HDF5, .fvecs, ...): a table whose row i belongs to vector i."
            ),
            click.option(
                "--stdin-format",
                type=click.Choice(STDIN_FORMATS),
                default=STDIN_FORMATS[0],
                show_default=True,
                help="Format of standard input (-).",
            ),
            click.option(
                "--from-collection", metavar="OTHER", help="Load the rows of a collection of the same server."
            ),
            click.option(
                "--filter", "expression", default="", help="With --from-collection: only rows that satisfy this filter."
            ),
        )
    ):
        run = option(run)
    return run
