"""The Milvus protocol: types, FieldData, vectors, placeholders, query results."""
