"""Search Alula collections: candidates, exact scores, pages, fields."""

from alula.search.hits import Hit, Hits, Results
from alula.search.ranking import RankedIds
from alula.search.request import SearchRequest, check_limit, check_rerank
from alula.search.searcher import Searcher

__all__ = ["Hit", "Hits", "RankedIds", "Results", "SearchRequest", "Searcher", "check_limit", "check_rerank"]
