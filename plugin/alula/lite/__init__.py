"""Alula's index types inside Milvus Lite 3, for an ordinary ``MilvusClient``.

Milvus Lite 3 is written in Python and has no plugin interface for index types, so `register` replaces a few functions
of the tested version. `unregister` puts them back.
"""

from alula.lite.registration import TESTED_VERSIONS, register, unregister

__all__ = ["TESTED_VERSIONS", "register", "unregister"]
