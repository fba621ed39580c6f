"""Alula's index types inside Milvus Lite 3: an ordinary ``MilvusClient`` builds and searches them in this process.

Milvus Lite 3 is written in Python and has no way to add an index type, so `register` replaces a few of its functions,
those of the version that it was tested with. `unregister` puts them back.
"""

from alula.lite.registration import TESTED_VERSIONS, register, unregister

__all__ = ["TESTED_VERSIONS", "register", "unregister"]
