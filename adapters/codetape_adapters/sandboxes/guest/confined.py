"""Loading the seccomp filter, for this process and all that it starts: there is no way back."""

import ctypes
import os


class Loaded(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]


def confine(program):
    """Load a filter, and give up gaining rights by starting programs. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(program, len(program))
    given = Loaded(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    for arguments in ((38, 1, 0, 0, 0), (22, 2, ctypes.byref(given), 0, 0)):  # NO_NEW_PRIVS, SECCOMP
        if libc.prctl(*arguments):
            number = ctypes.get_errno()
            raise OSError(number, f"the seccomp filter cannot be loaded: {os.strerror(number)}")
