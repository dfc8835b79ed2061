"""The command line as a process: how it begins and ends.

Exit status: 0 done, 1 the run failed or what it printed was lost, 2 the request was wrong or cannot be carried out here, 3
ended without quorum, 128 + n ended by signal n (130 Ctrl-C, 143 SIGTERM, 129 SIGHUP). A reader that leaves (``| head``) is no
failure.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading

from click.exceptions import Abort, ClickException

from fedprivseg.cli.root import app
from fedprivseg.cli.stop import Stop
from fedprivseg.cli.streams import open_streams
from fedprivseg.core.errors import FedprivsegError

_INTERRUPTED = 128 + signal.SIGINT
_RESUMED = "the same command goes on where it stopped"

_DISK = {
    errno.EACCES: "allow it, or choose another place",
    errno.EPERM: "allow it, or choose another place",
    errno.EROFS: "the disk takes no writing: choose another place, or copy the folder to one that does",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "look where its links lead",
    errno.ENOTDIR: "a part of the path is a file; choose another",
    errno.EISDIR: "give a file",
    errno.ENOSPC: "make room and run the same command again",
    errno.EDQUOT: "make room and run the same command again",
}
"""What a disk may refuse a command, and what to do about it. Any other OSError is a mistake of ours, and shows where."""


def main() -> None:
    """The console script: errors become one line on stderr and an exit status."""
    out, stop = open_streams(), Stop()
    stop.listen()
    status, said = 0, ""
    try:
        status = app(prog_name="fedprivseg", standalone_mode=False) or 0
    except FedprivsegError as fault:
        status, said = fault.status, str(fault)
    except ClickException as fault:
        fault.show()
        status = fault.exit_code
    except OSError as fault:
        if fault.errno not in _DISK:
            raise
        status, said = 2, f"{fault.filename or 'a file'}: {fault.strerror}; {_DISK[fault.errno]}"
    except (KeyboardInterrupt, Abort):
        status = _INTERRUPTED
    if stop.signal is not None:  # whatever else was said, a site's death among it, followed from it
        status, said = 128 + stop.signal, f"ended by {signal.Signals(stop.signal).name}; {_RESUMED}"
    elif status == _INTERRUPTED:  # typer turns Ctrl-C into this status without a word
        said = f"interrupted; {_RESUMED}"
    sys.stdout.flush()
    if not status and out.lost:
        status, said = 1, f"what it prints cannot be written ({out.lost}); what it wrote to files stands"
    if said:
        print(f"fedprivseg: {said}", file=sys.stderr)
    sys.stderr.flush()
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        # The server's thread of a run that ended early may still wait or compute; nothing it does matters any more.
        os._exit(status)
    sys.exit(status)
