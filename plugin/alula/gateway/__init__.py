"""A Milvus-protocol gateway: every SDK uses the index types on an existing deployment."""
