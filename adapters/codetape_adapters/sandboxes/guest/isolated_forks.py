"""Where pytest is loaded and nothing has run, forks that isolate themselves: each is a sandbox of its own that runs tests.

The plugin codetape_reporter calls `serve` before pytest configures anything, in a process that was started as one for tests is,
with a unix socket as descriptor CODETAPE_SOCKET, and is process 1 of a sandbox that keeps its rights inside its own user namespace.
For each byte that arrives with a socket, a fork enters namespaces of its own (processes, mounts, network, IPC, names, control
group, last a user namespace), mounts what a fresh sandbox has, gives up every right, loads the seccomp filter, says so on that
socket, and waits there to be put into its control group. What it is to run it reads from its own socket alone, so that the
server never holds anything of a job. From there on it is what init.py is, process 1 of a program; and the program is a fork of
it that returns from `serve`, to go on as if it had just been started.

Through its socket a fork says "ready", or what could not be done.
"""

import os
import socket
import sys
from _signal import SIG_IGN, SIGPIPE, signal

import init
from confined import confine

# CLONE_NEW*: IPC, UTS, network and control group; mounts; processes; users
SHARED, MOUNTS, PIDS, USERS = 0x4E000000, 0x20000, 0x20000000, 0x10000000
READ_ONLY, NO_SETUID, NO_DEVICES, NO_PROGRAMS, REMOUNT, BIND, ALL_BELOW, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
COVERED = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus")  # as bwrap covers them
DROP_BOUND, AMBIENT = 24, 47  # prctl
FILES = "/var/inputs"  # where the host's folder of staged files is, until a fork binds its own over it


def serve(config):
    """Fork for whoever asks; return in a process that runs tests, and in no other."""
    import ctypes
    import gc

    server = socket.socket(fileno=int(os.environ.pop("CODETAPE_SOCKET")))
    libc = ctypes.CDLL(None, use_errno=True)
    gc.collect()
    gc.freeze()
    os.write(server.fileno(), b"up\n")
    try:
        while True:
            data, fds, _, _ = socket.recv_fds(server, 1, 1)
            if not data:
                os._exit(0)
            child = os.fork()
            if child == 0:
                server.close()
                enter(libc, socket.socket(fileno=fds[0]))
                os._exit(0)
            os.close(fds[0])
            os.waitpid(child, 0)  # it forked once more and left
            reap()
    except init.Begin as begun:
        (asked, report) = begun.args
    begin(libc, config, asked, report)


def reap():
    """Take the ends of process 1s that were left to this one."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def enter(libc, host):
    """In a fork: go into new namespaces, of which the next process is the first."""
    call(libc, "unshare", SHARED | MOUNTS | PIDS)
    if os.fork() == 0:
        host.sendall(b".")  # the kernel tells the host which process this is
        try:
            asked = received(host)
            isolate(libc, asked)
        except BaseException as error:
            host.sendall(f"{error}\n".encode())
            os._exit(1)
        host.sendall(b"ready\n")
        supervise(host, asked)
    os._exit(0)


def received(host):
    """Return what is asked: a line of JSON, and with it the descriptors of stdout, stderr, outcome and report."""
    import json

    data, fds, _, _ = socket.recv_fds(host, 1 << 16, 8)
    while not data.endswith(b"\n"):
        part = host.recv(1 << 16)
        if not part:
            os._exit(1)
        data += part
    return {**json.loads(data), "fds": fds}


def isolate(libc, asked):
    """Make what a fresh sandbox has, then give up every right. Raises OSError, naming what failed."""
    os.setsid()
    mount(libc, None, "/", None, ALL_BELOW | PRIVATE)
    mount(libc, "proc", "/proc", "proc", NO_SETUID | NO_DEVICES | NO_PROGRAMS)
    kernel = os.open("/proc/sys", os.O_PATH)  # before it is covered
    mounts(libc, asked)
    loopback()
    own_user(libc)
    no_more_users(kernel)
    powerless(libc, bytes.fromhex(asked["filter"]))
    init.shut()


def mounts(libc, asked):
    """Mount file systems of this process's own, and bind the job's files, read-only."""
    for path in COVERED:
        if os.path.exists(path):
            bind(libc, path, path, NO_SETUID | NO_DEVICES | NO_PROGRAMS)
    mount(libc, "devpts", "/dev/pts", "devpts", NO_SETUID | NO_PROGRAMS, "newinstance,ptmxmode=0666,mode=620")
    for path, size, mode in asked["writable"]:
        mount(libc, "tmpfs", path, "tmpfs", NO_SETUID | NO_DEVICES, f"mode={mode},size={size}")
    stage, folder = f"{FILES}/{asked['stage']}", asked["folder"]
    for name in sorted(os.listdir(f"{stage}/work")):
        os.close(os.open(f"{folder}/{name}", os.O_CREAT | os.O_WRONLY, 0o444))
        bind(libc, f"{stage}/work/{name}", f"{folder}/{name}")
    bind(libc, f"{stage}/inputs", FILES)
    os.chdir(folder)


def mount(libc, source, target, kind, flags, data=None):
    call(libc, "mount", *(text and text.encode() for text in (source, target, kind)), flags, data and data.encode())


def bind(libc, source, target, more=NO_SETUID | NO_DEVICES):
    mount(libc, source, target, None, BIND)
    mount(libc, None, target, None, BIND | REMOUNT | READ_ONLY | more)


def call(libc, name, *arguments):
    import ctypes

    given = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments]
    if getattr(libc, name)(*given):
        number = ctypes.get_errno()
        raise OSError(number, f"{name} {arguments[1] if len(arguments) > 1 else ''}: {os.strerror(number)}")


def loopback():
    """Bring the loopback device up: a new network has nothing else."""
    import fcntl
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name = struct.pack("16sh", b"lo", 0)
        flags = struct.unpack("16sh", fcntl.ioctl(any_socket, 0x8913, name))[1]  # SIOCGIFFLAGS
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", flags | 1))  # SIOCSIFFLAGS, IFF_UP


def own_user(libc):
    """Enter a user namespace of one user: no right over anything outside of it is left, and limits count there alone."""
    user, group = os.getuid(), os.getgid()
    call(libc, "unshare", USERS)
    for file, text in (("setgroups", "deny"), ("gid_map", f"1000 {group} 1"), ("uid_map", f"1000 {user} 1")):
        with open(f"/proc/self/{file}", "w") as target:
            target.write(text)


def no_more_users(kernel):
    """Let nobody in this user namespace make another one, as bwrap does: the filter refuses it too."""
    limit = os.open("user/max_user_namespaces", os.O_WRONLY, dir_fd=kernel)
    os.write(limit, b"0")
    os.close(limit)
    os.close(kernel)


def powerless(libc, program):
    """Give up every capability for good, then load the filter."""
    import ctypes

    with open("/proc/sys/kernel/cap_last_cap") as last:
        for capability in range(int(last.read()) + 1):
            call(libc, "prctl", DROP_BOUND, capability, 0, 0, 0)
    call(libc, "prctl", AMBIENT, 4, 0, 0, 0)  # clear them all
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")
    confine(program)


def supervise(host, asked):
    """Wait until this process is in its control group, then run the program as a child, and tell what became of it."""
    released = host.recv(1) == b"x"
    host.close()
    if not released:
        return
    out, err, outcome, report = asked["fds"]
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    settings = {**asked["settings"], "outcome_fd": outcome, "report_fd": report}

    def program():
        raise init.Begin(asked, report)

    init.supervise(settings, program)


def begin(libc, config, asked, report):
    """Go on as a process of this job's own: in nothing but its targets and two variables it differs from the server."""
    libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, as one that is started is
    signal(SIGPIPE, SIG_IGN)  # as Python has it: it was made what a program expects that is started
    close_all_but(0, 1, 2, report)
    os.environ.update(asked["variables"], CODETAPE_REPORT_FD=str(report))
    for own in ("init", "confined", "isolated_forks"):
        del sys.modules[own]
    if asked["check"]:
        exec(asked["check"])  # noqa: S102 - the host's own check of what it started
        sys.stdout.flush()
        os._exit(0)
    sys.argv += asked["targets"]
    config.args = config.option.file_or_dir = list(asked["targets"])
    if hasattr(config, "ArgsSource"):
        config.args_source = config.ArgsSource.ARGS
    if "numpy.random" in sys.modules:  # a plugin's; Python's own generator is seeded anew by the fork
        sys.modules["numpy.random"].seed()


def close_all_but(*kept):
    """Close every descriptor but those: what is forked has them all, other than what is started."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:  # the folder's own
                pass
