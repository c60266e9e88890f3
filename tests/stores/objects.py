"""An object store in memory, as fsspec shows one: names with contents, no folders, no append."""

from pathlib import Path
from typing import Any

import fsspec
import pytest

from jaxcon.stores import lease


class Objects:
    """Buckets of one account; `history` has what they held after each change."""

    def __init__(self, *buckets: str):
        self.buckets, self.held = set(buckets), dict[str, bytes]()
        self.history: list[dict[str, bytes]] = []
        self.refused: Exception | None = None  # raised by whatever changes something

    def ls(self, path: str, *, detail: bool) -> list[dict[str, Any]]:
        assert detail
        found = {}
        for name, content in self._inside(path).items():
            first, slash, _ = name.partition("/")
            kind = "directory" if slash else "file"
            found[first] = {"name": f"{path}/{first}", "type": kind, "size": len(content)}
        if not found:
            raise FileNotFoundError(path)
        return list(found.values())

    def find(self, path: str, *, detail: bool) -> dict[str, dict[str, Any]]:
        assert detail
        return {f"{path}/{name}": {"size": len(c)} for name, c in self._inside(path).items()}

    def cat_file(self, path: str) -> bytes:
        if path not in self.held:
            raise FileNotFoundError(path)
        return self.held[path]

    def pipe_file(self, path: str, content: bytes, mode: str = "overwrite") -> None:
        if mode == "create" and path in self.held:
            raise FileExistsError(path)
        self._change({**self.held, path: content}, path)

    def rm_file(self, path: str) -> None:
        if path not in self.held:
            raise FileNotFoundError(path)
        self._change({name: c for name, c in self.held.items() if name != path}, path)

    def put(self, files: list[str], paths: list[str]) -> None:
        for file, path in zip(files, paths, strict=True):
            self.pipe_file(path, Path(file).read_bytes())

    def get(self, paths: list[str], files: list[str]) -> None:
        for path, file in zip(paths, files, strict=True):
            content = self.cat_file(path)
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).write_bytes(content)

    def _inside(self, path: str) -> dict[str, bytes]:
        root = f"{path.rstrip('/')}/"
        inside = {name: c for name, c in self.held.items() if name.startswith(root)}
        return {name[len(root) :]: c for name, c in sorted(inside.items())}

    def _change(self, held: dict[str, bytes], path: str) -> None:
        if self.refused is not None:
            raise self.refused
        if path.split("/")[0] not in self.buckets:
            raise FileNotFoundError("The specified bucket does not exist")
        self.held = held
        self.history.append(held)


@pytest.fixture
def objects(monkeypatch):
    """What gs:// and s3:// lead to, with one bucket named `bucket`."""
    store = Objects("bucket")
    monkeypatch.setattr(fsspec, "filesystem", lambda *_, **__: store)
    yield store
    store.refused = None
    for held in list(lease._held.values()):
        held.release()
