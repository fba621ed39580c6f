"""The cost of a search inside Milvus, with Alula's index types and Milvus's own."""
