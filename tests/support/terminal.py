"""A command at a pseudo-terminal, as a person sees it."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Sequence


def at_terminal(words: Sequence[str], *, columns: int = 110) -> tuple[int, str]:
    """The exit code of `abaw` and all that it printed, with a line for every state of a bar."""
    pid, screen = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "abaw", *words])
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    printed = b""
    while True:
        try:
            piece = os.read(screen, 1 << 16)
        except OSError:  # the process has closed it
            break
        if not piece:
            break
        printed += piece
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(screen)
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", printed.decode(errors="replace"))
    return code, text.replace("\r\n", "\n").replace("\r", "\n")
