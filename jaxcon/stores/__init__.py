"""Folders in object stores, gs:// and s3://, for runs whose hosts share no disk.

An object store is no file system: it has no append, no rename, no locks, and a folder is a prefix of
names. A run therefore works in a folder of its host, a `Mirror`, and sends what has changed whenever a
checkpoint is complete. What counts is complete: objects are written whole, and a checkpoint exists
once a last object says which files it has. A kill at any moment leaves what a resumed run needs.

| file | what |
|---|---|
| `address` | which paths mean an object store |
| `store` | the operations that a store has, with errors of one line |
| `lease` | one process at a time, where there are no locks |
| `mirror` | the folder of a run on this host, and the same in a store |
"""

from jaxcon.stores.address import address, shown
from jaxcon.stores.mirror import Mirror, local, mirror_of, named, reading, refresh
from jaxcon.stores.store import Store, StoreError

__all__ = [
    "Mirror",
    "Store",
    "StoreError",
    "address",
    "local",
    "mirror_of",
    "named",
    "reading",
    "refresh",
    "shown",
]
