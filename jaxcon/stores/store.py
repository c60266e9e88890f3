"""A folder in an object store: the few operations that all stores have, and what their errors mean."""

import contextlib
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

# The package that reads a kind of address, and where it looks for credentials.
_PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}
_CREDENTIALS = {
    "gs": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
}


class StoreError(ValueError):
    """A store cannot be read or written; the message is one line that names it."""


class Store:
    """A folder in an object store; names are paths below it, with slashes.

    Writing an object is atomic, and what is written is seen by all at once. Any method may raise a
    StoreError.

    Attributes:
      url: its address, such as `gs://bucket/run`.
    """

    def __init__(self, url: str):
        """Connects to the store; nothing is sent yet."""
        self.url = url
        self._kind, self._root = url.split("://", 1)
        self._files = _file_system(url)

    def names(self) -> dict[str, int | None]:
        """Returns what lies directly in the folder: sizes in bytes, None for folders."""
        with self._told("read"):
            try:
                entries = self._files.ls(self._root, detail=True)
            except FileNotFoundError:
                return {}
        folders = {entry["name"]: None for entry in entries if entry["type"] == "directory"}
        files = {entry["name"]: entry["size"] for entry in entries if entry["name"] not in folders}
        return self._relative(folders | files)

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Returns the size in bytes of every object in a folder, however deep, by name."""
        with self._told("read"):
            try:
                found = self._files.find(
                    posixpath.join(self._root, folder).rstrip("/"), detail=True
                )
            except FileNotFoundError:
                return {}
        return self._relative({name: entry["size"] for name, entry in found.items()})

    def read(self, name: str) -> bytes | None:
        """Returns an object; None if there is none."""
        with self._told("read"):
            try:
                return self._files.cat_file(self._path(name))
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Writes an object in place of the one of that name."""
        with self._told("written to"):
            self._files.pipe_file(self._path(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """Writes an object unless there is one of that name; returns whether it did."""
        try:
            with self._told("written to"):
                self._files.pipe_file(self._path(name), content, mode="create")
        except StoreError as error:
            if _is(
                error.__cause__, "FileExistsError", "PreconditionFailed", "At least one of the pre-"
            ):
                return False
            raise
        return True

    def upload(self, folder: Path, names: Iterable[str]) -> None:
        """Writes files of a folder, several at a time; they must not change meanwhile."""
        names = list(names)
        if names:
            with self._told("written to"):
                self._files.put([str(folder / name) for name in names], [*map(self._path, names)])

    def download(self, folder: Path, names: Iterable[str]) -> None:
        """Copies objects into a folder, several at a time.

        Raises:
          FileNotFoundError: if one of them is not there any more.
        """
        names = list(names)
        if odd := [name for name in names if ".." in name.split("/")]:
            raise StoreError(f"{self.url}: {odd[0]} leads out of the folder; remove it")
        if names:
            with self._told("read", FileNotFoundError):
                self._files.get([*map(self._path, names)], [str(folder / name) for name in names])

    def remove(self, names: Iterable[str]) -> None:
        """Removes objects; those that are not there are passed over."""
        for name in names:
            with self._told("written to"), contextlib.suppress(FileNotFoundError):
                self._files.rm_file(self._path(name))

    def check_writable(self, option: str) -> None:
        """Writes a small object and removes it again.

        Raises:
          StoreError: that begins with the option, if there is no such bucket, or no right to do so.
        """
        name = f".probe-{os.getpid()}"
        try:
            self.write(name, b"")
            self.remove([name])
        except StoreError as error:
            raise StoreError(f"{option}={error}") from error.__cause__

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name)

    def _relative(self, sizes: Mapping[str, Any]) -> dict[str, Any]:
        """Returns them by their names below the folder, without the folder itself."""
        root = f"{self._root.strip('/')}/"
        inside = {name.strip("/"): size for name, size in sizes.items()}
        return {name[len(root) :]: size for name, size in inside.items() if name.startswith(root)}

    @contextlib.contextmanager
    def _told(self, done: str, *passed: type[Exception]) -> Iterator[None]:
        """Turns whatever the store's package raises into a StoreError, but for what is passed on."""
        try:
            yield
        except passed:
            raise
        except Exception as error:
            raise StoreError(f"{self.url}: {self._reason(error, done)}") from error

    def _reason(self, error: Exception, done: str) -> str:
        bucket = self._root.split("/", 1)[0]
        line = " ".join(str(error).split())[:160]
        if isinstance(error, FileNotFoundError):  # of a folder or an object it is no error
            return f"there is no bucket {bucket}; make it, or name another"
        if _is(error, "NoCredentialsError", "DefaultCredentialsError", "Anonymous caller"):
            return f"found no credentials; {_CREDENTIALS[self._kind]}"
        if isinstance(error, PermissionError) or _is(error, "Forbidden", "Invalid Credentials"):
            return (
                f"cannot be {done} ({line}); the account needs the right to list, read, write and "
                f"remove objects of bucket {bucket}"
            )
        return f"cannot be {done} ({type(error).__name__}: {line})"


def _is(error: BaseException | None, *marks: str) -> bool:
    """Returns whether an error, or one of its causes, is of a type or has words that tell.

    The packages are not imported for their types, and neither lists what it raises.
    """
    while error is not None:
        said = f"{type(error).__name__}: {error}"
        if any(mark in said for mark in marks):
            return True
        error = error.__cause__ or error.__context__
    return False


def _file_system(url: str) -> Any:
    """Returns fsspec's file system for an address, without its memory of what it has listed."""
    kind = url.split("://", 1)[0]
    # In zonal buckets of Google's, objects stay open for appending unless told otherwise.
    settings = {"finalize_on_close": True} if kind == "gs" else {}
    try:
        import fsspec

        return fsspec.filesystem(
            kind, use_listings_cache=False, skip_instance_cache=True, **settings
        )
    except ImportError:
        package = _PACKAGES[kind]
        raise StoreError(
            f"{url}: needs {package}, which is not installed; run pip install 'jaxcon[{kind}]' (in a "
            f"checkout: pip install -e '.[{kind}]')"
        ) from None
