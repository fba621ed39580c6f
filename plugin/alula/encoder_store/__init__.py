"""Encoders kept in Milvus itself, so that gateways keep nothing."""
