"""The seccomp filter of both sandboxes, as classic BPF: what a Python program does not need is refused.

Refused are other address families than unix, IPv4, IPv6 and netlink, new namespaces, tracing, mounting,
kernel keys, BPF, io_uring, choosing CPUs, and pushing characters into a terminal. System call numbers are the kernel's tables.
"""

import errno
import platform
import struct
from dataclasses import dataclass
from functools import cache

from codetape.errors import SandboxUnavailable

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND = 0, 4, 16, 24  # offsets in struct seccomp_data
_FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
_TERMINAL = (0x5412, 0x541C, 0x5423)  # TIOCSTI, TIOCLINUX, TIOCSETD
_NEW_NAMESPACE = 0x7E020000  # every CLONE_NEW* flag
_X32 = 0x40000000


@dataclass(frozen=True)
class Table:
    """One architecture: its audit number, and its system calls by name."""

    audit: int
    refused: dict[str, int]
    memory_files: tuple[int, ...]
    clone3: int
    socket: int
    socketpair: int
    ioctl: int
    clone: int


_COMMON = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_getfd": 438, "process_madvise": 440,
    "mount_setattr": 442, "quotactl_fd": 443,
}  # fmt: skip

TABLES = {
    "x86_64": Table(
        audit=0xC000003E,
        refused={
            **_COMMON,
            "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "mount": 165, "umount2": 166,
            "pivot_root": 155, "chroot": 161, "unshare": 272, "setns": 308, "bpf": 321, "perf_event_open": 298,
            "keyctl": 250, "add_key": 248, "request_key": 249, "userfaultfd": 323, "kexec_load": 246,
            "kexec_file_load": 320, "init_module": 175, "finit_module": 313, "delete_module": 176, "reboot": 169,
            "swapon": 167, "swapoff": 168, "acct": 163, "quotactl": 179, "syslog": 103, "iopl": 172, "ioperm": 173,
            "name_to_handle_at": 303, "open_by_handle_at": 304, "kcmp": 312, "lookup_dcookie": 212, "vhangup": 153,
            "modify_ldt": 154, "personality": 135, "move_pages": 279, "mbind": 237, "set_mempolicy": 238,
            "migrate_pages": 256, "settimeofday": 164, "clock_settime": 227, "clock_adjtime": 305, "adjtimex": 159,
            "sethostname": 170, "setdomainname": 171, "fanotify_init": 300, "nfsservctl": 180, "uselib": 134,
            "_sysctl": 156, "sched_setaffinity": 203,
        },
        memory_files=(319, 447), clone3=435, socket=41, socketpair=53, ioctl=16, clone=56,
    ),
    "aarch64": Table(
        audit=0xC00000B7,
        refused={
            **_COMMON,
            "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "mount": 40, "umount2": 39,
            "pivot_root": 41, "chroot": 51, "unshare": 97, "setns": 268, "bpf": 280, "perf_event_open": 241,
            "keyctl": 219, "add_key": 217, "request_key": 218, "userfaultfd": 282, "kexec_load": 104,
            "kexec_file_load": 294, "init_module": 105, "finit_module": 273, "delete_module": 106, "reboot": 142,
            "swapon": 224, "swapoff": 225, "acct": 89, "quotactl": 60, "syslog": 116, "name_to_handle_at": 264,
            "open_by_handle_at": 265, "kcmp": 272, "lookup_dcookie": 18, "vhangup": 58, "personality": 92,
            "move_pages": 239, "mbind": 235, "set_mempolicy": 237, "migrate_pages": 238, "settimeofday": 170,
            "clock_settime": 112, "clock_adjtime": 266, "adjtimex": 171, "sethostname": 161, "setdomainname": 162,
            "fanotify_init": 262, "nfsservctl": 42, "sched_setaffinity": 122,
        },
        memory_files=(279, 447), clone3=435, socket=198, socketpair=199, ioctl=29, clone=220,
    ),
}  # fmt: skip


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value & 0xFFFFFFFF)


def _for_call(number: int, body: list[bytes]) -> list[bytes]:
    """Run the body for one system call; it must end in a return."""
    return [_op(_EQUAL, number, 0, len(body)), *body]


def _refuse(code: int) -> bytes:
    return _op(_RETURN, _ERRNO | code)


@cache
def program(machine: str | None = None, *, memory_files: bool = True) -> bytes:
    """Return the filter for an architecture (this machine's by default). Raises SandboxUnavailable for others.

    Without ``memory_files`` none can be made (memfd_create): only a control group counts what is in them.
    """
    name = machine or platform.machine()
    table = TABLES.get({"arm64": "aarch64", "AMD64": "x86_64"}.get(name, name))
    if table is None:
        raise SandboxUnavailable(
            f"There is no system call filter for {name}.", remedy="Use x86_64 or aarch64.", step="seccomp"
        )
    code = [_op(_LOAD, _ARCHITECTURE), _op(_EQUAL, table.audit, 1, 0), _op(_RETURN, _KILL), _op(_LOAD, _NUMBER)]
    if table.audit == TABLES["x86_64"].audit:
        code += [_op(_AT_LEAST, _X32, 0, 1), _refuse(errno.ENOSYS)]
    code += _for_call(table.clone3, [_refuse(errno.ENOSYS)])  # its flags cannot be read here: libc falls back to clone
    for number in sorted((*table.refused.values(), *(() if memory_files else table.memory_files))):
        code += _for_call(number, [_refuse(errno.EPERM)])
    for number in (table.socket, table.socketpair):
        code += _for_call(number, _one_of(_FIRST, _FAMILIES, refused=False))
    code += _for_call(table.ioctl, _one_of(_SECOND, _TERMINAL, refused=True))
    namespaces = [_op(_LOAD, _FIRST), _op(_ANY_BIT, _NEW_NAMESPACE, 0, 1), _refuse(errno.EPERM), _op(_RETURN, _ALLOW)]
    code += _for_call(table.clone, namespaces)
    return b"".join([*code, _op(_RETURN, _ALLOW)])


def _one_of(offset: int, values: tuple[int, ...], *, refused: bool) -> list[bytes]:
    """Return a body that allows (or refuses) an argument that is one of the values, and the other way round."""
    tests = [_op(_EQUAL, value, len(values) - i, 0) for i, value in enumerate(values)]
    allow, refuse = _op(_RETURN, _ALLOW), _refuse(errno.EPERM if refused else errno.EAFNOSUPPORT)
    return [_op(_LOAD, offset), *tests, *((allow, refuse) if refused else (refuse, allow))]
