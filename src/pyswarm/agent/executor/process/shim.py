"""Supervises the process of one task, outliving the daemon: `python -I -S shim.py DIRECTORY`.

A program of its own that imports nothing but a little of the standard library, because one of it sits in memory for every task. It reads
`task.json` in the directory, starts the process in a session of its own, writes its output to `log`, and when it ends kills whatever the
process left running and writes `exit.json`. What it does is on disk before it counts: a daemon that comes later finds everything there.

To its starter it says one line on standard output: `ok`, `failed: <reason>`, or `busy` when the task has a shim or has ended already.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import struct
import sys
import time

FRAME = struct.Struct(">QBI")
"""Before each line in the log: nanoseconds since the epoch, stream (1 stdout, 2 stderr), size of the data."""

STDOUT, STDERR = 1, 2
LINE_LIMIT = 16 * 1024
"""Bytes after which a line without an end is cut."""

LOG_LIMIT = 8 * 1024 * 1024
"""Bytes of a log file; the one before it is kept as `log.1`, so a task's output never takes more than twice this."""

PR_SET_CHILD_SUBREAPER = 36
SWEEP_ROUNDS = 500
SWEEP_PAUSE = 0.01
DRAIN_SECONDS = 1.0
NOT_FOUND, NOT_EXECUTABLE = 127, 126
_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)


def main(arguments: list[str]) -> int:
    """Detach and supervise. Returns an exit status; only the starter sees it."""
    directory = arguments[1]
    if os.fork():
        return 0
    os.setsid()
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    lock = os.open(os.path.join(directory, "lock"), os.O_CREAT | os.O_RDWR, 0o600)  # noqa: PTH118 - pathlib costs every task memory
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _answer("busy")
    if os.path.exists(os.path.join(directory, "exit.json")) or os.path.exists(os.path.join(directory, "state.json")):  # noqa: PTH110, PTH118
        return _answer("busy")
    Supervisor(directory).run()
    return 0


class Log:
    """The framed output of the task. Never fails: a full disk costs lines, not the task."""

    def __init__(self, directory: str) -> None:
        self._path = f"{directory}/log"
        self._rest = {STDOUT: b"", STDERR: b""}
        self._size = 0
        self._file = self._open()

    def add(self, stream: int, data: bytes) -> None:
        """Write all complete lines; empty data means that the stream ended and the last line is complete as it is."""
        *lines, rest = (self._rest[stream] + data).split(b"\n")
        lines = [line + b"\n" for line in lines]
        if rest and (not data or len(rest) >= LINE_LIMIT):
            lines.append(rest)
            rest = b""
        self._rest[stream] = rest
        now = time.time_ns()
        frames = [
            FRAME.pack(now, stream, len(piece)) + piece
            for line in lines
            for piece in (line[at : at + LINE_LIMIT] for at in range(0, len(line), LINE_LIMIT))
        ]
        if frames:
            self._write(b"".join(frames))

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            if self._size + len(data) > LOG_LIMIT:
                os.replace(self._path, f"{self._path}.1")  # noqa: PTH105
                full, self._file, self._size = self._file, self._open(), 0
                os.close(full)
            self._size += len(data)
            written = os.write(self._file, data)
            if written < len(data):
                # A half frame would make all after it unreadable.
                os.ftruncate(self._file, os.fstat(self._file).st_size - written)

    def _open(self) -> int:
        return os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)


class Supervisor:
    """Starts the process, keeps its output, and records how it ended."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._child = 0
        self._status: int | None = None

    def run(self) -> None:
        """From the start to the recorded end."""
        with open(f"{self._directory}/task.json", "rb") as file:  # noqa: PTH123
            task = json.load(file)
        _become_subreaper()
        woken, wake = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        log = Log(self._directory)
        out, err, failure = self._launch(task)
        if failure:
            os.waitpid(self._child, 0)
            code = NOT_EXECUTABLE if failure.endswith("permission denied") else NOT_FOUND
            self._record("exit.json", {"code": code, "error": failure, "at": time.time()})
            _answer(f"failed: {failure}")
            return
        _answer("ok")
        self._follow(log, {out: STDOUT, err: STDERR}, woken)
        self._sweep()
        self._record("exit.json", {"code": _exit_code(self._status or 0), "error": "", "at": time.time()})

    def _launch(self, task: dict[str, object]) -> tuple[int, int, str]:
        """Starts the process once its identity is on disk. The pipes of its output, and why it could not be executed if so."""
        out, out_end = os.pipe()
        err, err_end = os.pipe()
        go, go_end = os.pipe()
        failed, failed_end = os.pipe()
        self._child = os.fork()
        if not self._child:
            os.close(go_end)  # or the wait for the cue would outlast a supervisor that dies
            _execute(task, go, out_end, err_end, failed_end)
        for descriptor in (out_end, err_end, go, failed_end):
            os.close(descriptor)
        shim, child = os.getpid(), self._child
        self._record("state.json", {"boot": boot_id(), "shim": [shim, start_time(shim)], "child": [child, start_time(child)]})
        os.write(go_end, b"g")
        os.close(go_end)
        with open(failed, "rb") as pipe:  # noqa: PTH123
            return out, err, pipe.read().decode("utf-8", "replace")

    def _follow(self, log: Log, pipes: dict[int, int], woken: int) -> None:
        """Copies output to the log until the process has ended and nothing more comes."""
        poll = select.poll()
        for descriptor in (*pipes, woken):
            poll.register(descriptor, select.POLLIN)
        deadline = 0.0
        while pipes or self._status is None:
            events = poll.poll(100 if deadline else None)
            for descriptor, _ in events:
                if descriptor == woken:
                    with contextlib.suppress(BlockingIOError):
                        os.read(woken, 4096)
                    self._reap()
                    continue
                data = os.read(descriptor, 65536)
                log.add(pipes[descriptor], data)
                if not data:
                    poll.unregister(descriptor)
                    os.close(descriptor)
                    del pipes[descriptor]
            if self._status is not None and not deadline:
                self._sweep()
                deadline = time.monotonic() + DRAIN_SECONDS
            if deadline and time.monotonic() > deadline:
                break  # Something that escaped the sweep holds the pipe; the task is over all the same.
        for stream in pipes.values():
            log.add(stream, b"")

    def _reap(self) -> None:
        """Collects every child that ended, adopted ones too."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                if pid == self._child:
                    self._status = status

    def _sweep(self) -> None:
        """Kills what the process left running: everything that descends from it, whatever session it moved to."""
        for _ in range(SWEEP_ROUNDS):
            self._reap()
            left = descendants(os.getpid(), self._child)
            if not left:
                return
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(SWEEP_PAUSE)

    def _record(self, name: str, content: dict[str, object]) -> None:
        """Writes a file so that it is whole or not there, also after a power cut."""
        path = f"{self._directory}/{name}"
        with open(f"{path}.tmp", "w", encoding="utf-8") as file:  # noqa: PTH123
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{path}.tmp", path)  # noqa: PTH105
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(descriptor)
        os.close(descriptor)


def boot_id() -> str:
    """Changes with every start of the machine, which begins its process ids and their start times anew."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123
        return file.read().strip()


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, the state first. Empty when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return file.read().rpartition(b")")[2].decode("ascii").split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def start_time(pid: int) -> int:
    """When the process began, in clock ticks since boot: with its id it names one process for good. 0 when there is none."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields else 0


def descendants(root: int, session: int) -> list[int]:
    """Living processes below `root`, and those of `session`, without `root` itself. Without subreapers the session is all that is left."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for name in os.listdir("/proc"):  # noqa: PTH208
        fields = stat_fields(int(name)) if name.isdigit() else []
        if not fields or fields[0] in "ZX":
            continue
        parents[int(name)] = int(fields[1])
        if int(fields[3]) == session:
            found.add(int(name))
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent == root or parent in found} - found
        found |= more
        grown = bool(more)
    found.discard(root)
    return sorted(found)


def _execute(task: dict[str, object], go: int, out: int, err: int, failed: int) -> None:
    """The new process: waits for its cue and becomes the task. Never returns."""
    step = "session"
    try:
        os.setsid()
        if not os.read(go, 1):
            os._exit(NOT_EXECUTABLE)
        nothing = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(source, target)
        signal.set_wakeup_fd(-1)
        for number in (*_IGNORED, signal.SIGCHLD, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        step = f"directory {task['dir']}"
        os.chdir(str(task["dir"]))
        step = f"user {task['uid']}"
        _become_user(task)
        os.umask(0o022)
        argv = [str(word) for word in _list(task["argv"])]
        step = argv[0]
        environment = {str(key): str(value) for key, value in _dict(task["env"]).items()}
        os.execvpe(argv[0], argv, environment)  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(failed, f"{step}: {os.strerror(error.errno or errno.EIO).lower()}".encode())
    except BaseException as error:  # noqa: BLE001 - nothing may escape into a second supervisor
        os.write(failed, f"{step}: {error!r}".encode())
    finally:
        os._exit(NOT_FOUND)


def _become_user(task: dict[str, object]) -> None:
    uid, gid = task["uid"], task["gid"]
    if isinstance(uid, int) and isinstance(gid, int):
        os.setgroups([int(str(group)) for group in _list(task["groups"])])
        os.setgid(gid)
        os.setuid(uid)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _dict(value: object) -> dict[object, object]:
    return value if isinstance(value, dict) else {}


def _exit_code(status: int) -> int:
    """As shells and engines count: 128 + n for signal n."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _become_subreaper() -> None:
    """Processes that the task leaves behind become our children instead of init's, so that they can be found at the end."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _answer(text: str) -> int:
    """One line for the starter, who may be gone; then nothing keeps his pipes open."""
    with contextlib.suppress(OSError):
        os.write(1, text.encode() + b"\n")
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
