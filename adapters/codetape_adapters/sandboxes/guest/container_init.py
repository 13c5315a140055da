"""First process of a container: waits until it is released, starts the runner, and sends all its pipes out through one stream.

Called as: container_init.py FILTER RUNNER WORDS COMMAND... where FILTER is the file with the seccomp program ("" for none) and RUNNER
the runner's file. Released by SIGUSR1. Each frame is a letter (o and e: the program's output; r: the report; c: the runner's
outcome; s: what the control group counted, last of all), four bytes of length, and so many bytes.
"""

import ctypes
import os
import select
import signal
import struct
import sys

CHANNELS = {"o": 1, "e": 2, "r": None, "c": None}


def main():
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    frame("s", b"ready")
    signal.sigwait({signal.SIGUSR1})
    filter_file, runner, words = sys.argv[1:4]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: the program cannot look into this process
    if filter_file:
        confine(filter_file, os.path.dirname(runner))
    pipes = {name: os.pipe() for name in CHANNELS}
    gate_read, gate_write = os.pipe()
    os.write(gate_write, b"x")
    report = pipes["r"][1] if "reports=1" in words.split(",") else -1
    words = f"{words},outcome_fd={pipes['c'][1]},report_fd={report},gate_fd={gate_read}"
    child = os.fork()
    if child == 0:
        become(pipes, gate_read, report, [sys.executable, "-I", "-S", "-B", runner, words, *sys.argv[4:]])
    for _, write in pipes.values():
        os.close(write)
    os.close(gate_read)
    pump({name: read for name, (read, _) in pipes.items()}, child)
    frame("s", counted())


def become(pipes, gate, report, command):
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(pipes["o"][1], 1)
    os.dup2(pipes["e"][1], 2)
    for fd in (report, pipes["c"][1], gate):
        if fd >= 0:
            os.set_inheritable(fd, True)
    if report >= 0:
        os.environ["CODETAPE_REPORT_FD"] = str(report)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    os.execv(command[0], command)


def confine(path, harness):
    """Load the filter for this process and all that it starts."""
    sys.path.insert(0, harness)  # filled by now
    import confined

    try:
        with open(path, "rb") as file:
            confined.confine(file.read())
    except OSError as error:
        frame("e", str(error).encode())
        os._exit(125)


def pump(pipes, runner):
    """Forward until every pipe is closed. When the runner is gone whatever it left is killed: nothing holds a pipe open."""
    names = {fd: name for name, fd in pipes.items()}
    gone = False
    while names:
        ready, _, _ = select.select(list(names), [], [], 0.05)
        for fd in ready:
            data = os.read(fd, 1 << 16)
            if data:
                frame(names[fd], data)
            else:
                os.close(fd)
                del names[fd]
        if not gone:
            try:
                gone = os.waitpid(runner, os.WNOHANG)[0] == runner
            except ChildProcessError:
                gone = True
        if gone and not ready:
            try:
                os.kill(-1, signal.SIGKILL)
            except ProcessLookupError:
                if not names:
                    return


def counted():
    """Return what the control group says of processes that were refused or killed for their memory."""
    found = []
    for place, name in (
        ("/sys/fs/cgroup/memory.events", "oom_kill"),
        ("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill"),
        ("/sys/fs/cgroup/pids.events", "max"),
        ("/sys/fs/cgroup/pids/pids.events", "max"),
    ):
        try:
            with open(place) as lines:
                for line in lines:
                    key, _, value = line.partition(" ")
                    if key == name:
                        found.append(name + "=" + value.strip())
        except OSError:
            pass
    return ",".join(found).encode()


def frame(letter, data):
    view = memoryview(letter.encode() + struct.pack(">I", len(data)) + data)
    while view:
        view = view[os.write(1, view) :]


main()
