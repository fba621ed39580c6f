"""The gateway: Milvus's protocol in front of a Milvus server, with index types."""
