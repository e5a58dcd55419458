"""A process of its own without a second start of Python: a fork, which has torch and all else imported already."""

import os
import runpy
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from typing import IO, Any

import torch

RUN = subprocess.run


def fork(work: Callable[[], object], *, stdout: IO[str] | None = None, stderr: IO[str] | None = None) -> int:
    """Do some work in a fork, and return how that ended as `subprocess` says it: 0, 1 with a traceback, or −signal."""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: those of pytest wait for tests
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    # Torch makes its pool of threads anew in a fork when first asked, and two threads that ask at once find none.
    torch.set_num_threads(torch.get_num_threads())
    code = 1
    try:
        sys.stdout, sys.stderr = stdout or sys.stdout, stderr or sys.stderr
        work()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # nothing of the tests goes on here


def run(command: list[Any], **how: Any) -> subprocess.CompletedProcess[str]:
    """Stand for `subprocess.run` of captured text, with a fork wherever a script is given to this Python."""
    python, script, *words = map(str, command)
    if python != sys.executable or not script.endswith(".py"):
        return RUN(command, **how)

    def work() -> None:
        os.environ.update(how.get("env") or {})
        sys.argv = [script, *words]
        runpy.run_path(script, run_name="__main__")

    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        code = fork(work, stdout=out, stderr=err)
        texts = [(file.seek(0), file.read())[1] for file in (out, err)]
    done = subprocess.CompletedProcess(command, code, *texts)
    if how.get("check") and code:
        raise AssertionError(f"{command} ended with {code}:\n{done.stderr}")
    return done
