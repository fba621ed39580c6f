"""Search an Alula collection: encode, search natively, rank by exact vectors, read fields."""

from alula.search.ranking import RankedIds
from alula.search.request import SearchRequest, check_limit, check_rerank
from alula.search.searcher import Hit, Searcher

__all__ = ["Hit", "RankedIds", "SearchRequest", "Searcher", "check_limit", "check_rerank"]
