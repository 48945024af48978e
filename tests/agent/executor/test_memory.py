"""Files in memory."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyswarm.agent.executor import ExecutorError, TemporaryError
from pyswarm.agent.executor.files import File, Files, Owner
from pyswarm.agent.executor.memory import Memory, TaskFiles
from tests.support.tmpfs import files_below, private_tmpfs

ME = Owner(os.geteuid(), os.getegid())


@pytest.fixture
def tmpfs() -> Iterator[Path]:
    """A tmpfs."""
    with private_tmpfs() as directory:
        yield directory


def some(*paths: str) -> Files:
    """Files at these paths."""
    return Files(tuple(File(path, path.encode(), ME, 0o440) for path in paths), ME)


def test_files(tmpfs: Path) -> None:
    """Files appear with content and mode in directories that nobody else may enter, whatever the umask."""
    memory = Memory(lambda: "me", [tmpfs])
    old = os.umask(0o777)
    try:
        memory.write("t", some("secrets/a/b"))
    finally:
        os.umask(old)
    directory = memory.directory("t")
    assert directory == tmpfs / f"pyswarm-{os.geteuid()}" / "me" / "t"
    file = directory / "secrets/a/b"
    assert file.read_bytes() == b"secrets/a/b"
    assert [path.stat().st_mode & 0o777 for path in (file, file.parent, file.parent.parent, directory)] == [0o440, 0o700, 0o700, 0o711]
    memory.delete("t")
    memory.delete("t")
    assert list(tmpfs.iterdir()) == []


def test_all_or_nothing(tmpfs: Path) -> None:
    """A task whose files cannot all be made gets none."""
    memory = Memory(lambda: "me", [tmpfs])
    with pytest.raises(ExecutorError, match=r"secrets and configs cannot be placed in .*/me/t: File exists"):
        memory.write("t", some("secrets/a", "secrets/a"))
    assert files_below(tmpfs) == []


def test_sweep(tmpfs: Path) -> None:
    """A sweep takes the files of forgotten tasks, half made ones too, and nothing of another executor."""
    mine, other = Memory(lambda: "me", [tmpfs]), Memory(lambda: "", [tmpfs])
    for memory, task in ((mine, "kept"), (mine, "gone"), (other, "gone")):
        memory.write(task, some("files/0"))
    mine.directory("half.new").mkdir()
    mine.keep_only(["kept"])
    assert [path.name for path in mine.directory("x").parent.iterdir()] == ["kept"]
    other.keep_only(())
    mine.keep_only(())
    assert list(tmpfs.iterdir()) == []


def test_no_memory(tmp_path: Path) -> None:
    """Without a tmpfs nothing is placed, and nothing there is no reason to fail."""
    on_disk = Path("/proc")  # Neither a tmpfs nor writable.
    memory = Memory(lambda: "me", [on_disk, tmp_path / "missing"])
    with pytest.raises(ExecutorError, match=r"kept in memory only, and neither /proc nor .*missing is a tmpfs this daemon may write to"):
        memory.directory("t")
    memory.delete("t")
    memory.keep_only(())


def test_foreign_directory(tmpfs: Path) -> None:
    """A directory that somebody else could have prepared is not used."""
    place = tmpfs / f"pyswarm-{os.geteuid()}"
    memory = Memory(lambda: "me", [tmpfs])
    for prepare in (lambda: place.symlink_to("/tmp"), lambda: (place.mkdir(), place.chmod(0o777))):
        prepare()
        with pytest.raises(ExecutorError, match="somebody else made it"):
            memory.write("t", some("files/0"))
        place.unlink() if place.is_symlink() else place.rmdir()


async def test_delivery(tmpfs: Path) -> None:
    """Files are made once, and again only when they are gone; a delivery that fails for now can be repeated."""
    memory = Memory(lambda: "me", [tmpfs])
    made: list[str] = []

    def make() -> Files:
        made.append("once")
        if len(made) == 1:
            raise TemporaryError("dependency not ready")
        return some("files/0")

    files = TaskFiles(memory, "t", make)
    with pytest.raises(TemporaryError):
        await files.deliver()
    await files.deliver()
    await files.deliver()
    assert len(made) == 2
    await files.discard()
    await files.discard_early()
    assert files_below(tmpfs) == []
    nothing = TaskFiles(Memory(lambda: "me", []), "t", None)
    await nothing.deliver()
    await nothing.discard()


async def test_cancelled_delivery(tmpfs: Path) -> None:
    """What a cancelled delivery still does is over before the files are deleted."""
    begun, go = threading.Event(), threading.Event()

    def make() -> Files:
        begun.set()
        go.wait(10)
        return some("files/0")

    files = TaskFiles(Memory(lambda: "me", [tmpfs]), "t", make)
    delivery = asyncio.create_task(files.deliver())
    await asyncio.to_thread(begun.wait, 10)
    delivery.cancel()
    with pytest.raises(asyncio.CancelledError):
        await delivery
    discard = asyncio.create_task(files.discard())
    go.set()
    await discard
    assert files_below(tmpfs) == []
