"""The Milvus protocol: field types, FieldData, vectors, placeholders, query results."""
