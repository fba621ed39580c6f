"""The gateway: a server that speaks Milvus's protocol in front of a deployment and gives it Alula's index types."""
