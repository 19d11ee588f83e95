"""A forked child that does something and says how it went."""

import os
import signal
import traceback


def exit_code_of_child(work, *, seconds=120):
    """Fork, run ``work`` in the child, and answer its exit code: what ``work`` returned, 70 if it raised."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(seconds)
            code = int(work() or 0)
        except BaseException:  # noqa: BLE001  the child must not go on as a second test run
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
