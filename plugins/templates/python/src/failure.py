"""What becomes of an exception."""

from collections.abc import Callable
from functools import wraps

from wit_world.imports import log
from wit_world.imports.types import Reason, Verdict, Verdict_Fail


class Failure(Exception):
    """To be raised where an event cannot be handled: the delivery is shown as failed, under `code`.

    `code` is short and stable, since people search by it; `detail` is for reading.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def or_fail[**P](transform: Callable[P, Verdict]) -> Callable[P, Verdict]:
    """Makes whatever is raised the verdict `fail`.

    Of an exception that gets past a plugin, the router learns only that the plugin trapped: neither its
    words nor its place.
    """

    @wraps(transform)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Verdict:
        try:
            return transform(*args, **kwargs)
        except Failure as err:
            return Verdict_Fail(Reason(err.code, str(err)))
        except Exception as err:
            # Nobody expected this one, so its place matters. `traceback` would look for source files.
            words = f"{type(err).__name__}: {err}"
            log.log(log.Level.ERROR, f"{words} ({place(err)})")
            return Verdict_Fail(Reason("exception", words))

    return guarded


def place(err: Exception) -> str:
    at = err.__traceback__
    while at and at.tb_next:
        at = at.tb_next
    return f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}" if at else "nowhere"
