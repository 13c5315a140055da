"""First process of an execution: starts the program under its limits, then ships what it left in /var/outputs.

Called as: runner.py NAME=NUMBER,... COMMAND... with the descriptors of its pipes, limits on outputs, and RLIMIT_*.
It is process 1: when it ends, the kernel kills whatever is left. It starts while the host still puts it into its control
group, and waits at the gate before it starts anything itself.
What it needs only for outputs is imported only for them: this process starts before every program.
The outcome pipe gets one JSON line, then for each output a JSON line with path and size followed by its bytes,
then a last JSON line with what was rejected.
"""

import _signal  # signal itself loads enum, which takes longer than the rest of this process
import os
import resource
import stat
import sys

OUTPUTS = "/var/outputs"
STDIN = "/var/inputs/.stdin"


class Begin(BaseException):
    """Raised in a program's process that is not replaced: what it carries is called where nothing of this is left."""


def main():
    words = (word.partition("=") for word in sys.argv[1].split(","))
    settings, command = {name: int(value) for name, _, value in words}, sys.argv[2:]
    shut()
    if os.read(settings["gate_fd"], 1) != b"x":  # until this process is in its control group
        return
    os.close(settings["gate_fd"])
    supervise(settings, lambda: os.execv(command[0], command))


def supervise(settings, program):
    """Start a program, wait for it, end what it left, and tell what became of it."""
    os.write(settings["outcome_fd"], b'{"begun": true}\n')
    try:
        status = run(settings, program)
    except OSError as error:
        os.write(settings["outcome_fd"], b'{"error": %s}\n' % quoted(str(error)))
        return
    try:
        os.kill(-1, _signal.SIGKILL)  # everything else in this PID namespace
    except ProcessLookupError:
        pass
    with os.fdopen(settings["outcome_fd"], "wb") as pipe:
        pipe.write(b'{"status": %d}\n' % status)
        pipe.flush()
        if settings["max_bytes"]:
            ship(pipe, settings)


def shut():
    """Let the program look into this process neither by ptrace nor by /proc: prctl(PR_SET_DUMPABLE, 0)."""
    try:
        import _ctypes

        _ctypes.call_function(_ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl"), (4, 0, 0, 0, 0))
    except (ImportError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)


def run(settings, program):
    """Start the program, wait for it; return its exit status, negative for a signal. Raises OSError.

    ``program`` replaces the process, or raises Begin, which leaves every frame of this module.
    """
    told, tell = os.pipe()  # what keeps the program from starting; closed by its start
    child = os.fork()
    if child == 0:
        try:
            prepare(settings, tell)
            program()
        except Begin:
            os.close(tell)
            raise
        except BaseException as error:
            os.write(tell, str(error).encode())
        os._exit(127)
    os.close(tell)
    if settings["report_fd"] >= 0:
        os.close(settings["report_fd"])
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):  # the program's own descriptors alone keep the output open
        os.dup2(null, fd)
    said = os.read(told, 1000)
    os.close(told)
    if said:
        raise OSError(said.decode("utf-8", "replace"))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def prepare(settings, tell):
    """Put this process under the program's limits, with the report pipe as its only further descriptor."""
    for name, value in settings.items():
        if not name.startswith("RLIMIT_"):
            continue
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    for name, value in (("PWD", os.getcwd()), ("HOSTNAME", "sandbox")):  # what isolation itself put there
        if os.environ.get(name) == value:
            del os.environ[name]
    try:
        given = os.open(STDIN, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        given = os.open(os.devnull, os.O_RDONLY)
    os.dup2(given, 0)
    if given:
        os.close(given)
    os.set_inheritable(settings["outcome_fd"], False)
    os.set_inheritable(tell, False)
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)


def ship(pipe, settings):
    """Send regular files only; nothing is followed, and limits are kept while walking."""
    rejected, left, files = [], settings["max_bytes"], 0

    def reject(path, why):
        if len(rejected) < 50:
            rejected.append(path[:200] + ": " + why)

    def walk(folder, prefix, depth):
        nonlocal left, files
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            path = prefix + name
            if not name.isprintable() or any(0xD800 <= ord(c) <= 0xDFFF for c in name) or len(path) > 400:
                reject(ascii(path), "unprintable name")
                continue
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                if depth >= settings["max_depth"]:
                    reject(path, "too deep")
                    continue
                inner = opened(name, folder, os.O_DIRECTORY)
                if inner is None:
                    reject(path, "cannot be opened")
                    continue
                try:
                    walk(inner, path + "/", depth + 1)
                finally:
                    os.close(inner)
                continue
            if not stat.S_ISREG(found.st_mode):
                reject(path, "not a regular file")
            elif found.st_nlink != 1:
                reject(path, "hard link")
            elif files >= settings["max_files"]:
                reject(path, "too many files")
            elif found.st_size > left:
                reject(path, "too large")
            else:
                fd = stable(name, folder, found.st_size)
                if fd is None:
                    reject(path, "cannot be read")
                    continue
                left -= found.st_size
                files += 1
                pipe.write(b'{"path": %s, "size": %d}\n' % (quoted(path), found.st_size))
                try:
                    copy(fd, pipe, found.st_size)
                finally:
                    os.close(fd)

    root = opened(OUTPUTS, None, os.O_DIRECTORY)
    if root is not None:
        walk(root, "", 0)
        os.close(root)
    pipe.write(b'{"rejected": [%s]}\n' % b", ".join(map(quoted, rejected)))


def quoted(text):
    """Return a text as JSON. The module json loads re, which takes longer than most programs' outputs to ship."""
    try:
        from _json import encode_basestring_ascii
    except ImportError:
        from json.encoder import py_encode_basestring_ascii as encode_basestring_ascii
    return encode_basestring_ascii(text).encode()


def opened(name, folder, flags):
    if flags & os.O_DIRECTORY:
        try:  # a folder without its search bit would hide what is in it
            os.chmod(name, 0o700, dir_fd=folder)
        except OSError:
            pass
    for attempt in (0, 1):
        try:
            return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | flags, dir_fd=folder)
        except OSError:
            if attempt or folder is None:
                return None
            try:  # a mode of 0 is no reason to lose an output
                os.chmod(name, 0o700, dir_fd=folder)
            except OSError:
                return None
    return None


def stable(name, folder, size):
    """Open a file, if it is still what it was: a regular one, of that size."""
    fd = opened(name, folder, 0)
    if fd is None:
        return None
    now = os.fstat(fd)
    if not stat.S_ISREG(now.st_mode) or now.st_nlink != 1 or now.st_size != size:
        os.close(fd)
        return None
    return fd


def copy(fd, pipe, size):
    """Send so many bytes in small parts: the file lies in memory already, and this process has little beside it."""
    while size:
        part = os.read(fd, min(size, 1 << 16))
        if not part:
            raise OSError("an output became shorter")
        pipe.write(part)
        size -= len(part)


if __name__ == "__main__":
    main()
    os._exit(0)  # everything is written; an interpreter's end takes its time
