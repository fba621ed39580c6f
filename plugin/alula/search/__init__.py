"""Search Alula collections: candidates, exact scores, pages, fields."""

from alula.search.ranking import RankedIds
from alula.search.request import SearchRequest, check_limit, check_rerank
from alula.search.searcher import Hit, Searcher

__all__ = ["Hit", "RankedIds", "SearchRequest", "Searcher", "check_limit", "check_rerank"]
