"""What a search costs inside Milvus, with Alula's index types and with Milvus's own."""
