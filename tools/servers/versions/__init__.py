"""A real engine that answers as later versions of Milvus do, where they differ.

Each `rule.Rule` is one difference, read in the source of Milvus and applied to the calls that pass a proxy. Storage,
search and scores are the engine's own, so this shows how Alula copes with the differences and nothing else of those
versions, none of which runs here.
"""
