"""The tasks, found by name in their folders.

A folder lists its tasks in its `__init__.py`, with the module and class of each:

    TASKS = {"digits": "digits:Digits", "mnist": "mnist:MNIST"}

A new task is a file or a folder here, with the interface of `base.Task`, and a config `configs/<name>.py`.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from experiments.schema import UserError, nearest

if TYPE_CHECKING:
    from experiments.tasks.base import Task


def _listed() -> dict[str, str]:
    """Returns task names, in order, and the path of each class below this package. Imports no task."""
    paths = {}
    for folder in (module.name for module in pkgutil.iter_modules(__path__) if module.ispkg):
        package = importlib.import_module(f"{__name__}.{folder}")
        paths |= {name: f"{folder}.{path}" for name, path in package.TASKS.items()}
    return dict(sorted(paths.items()))


TASKS = _listed()


def find(name: Any) -> "type[Task]":
    """Returns the class of a task, imported now.

    Args:
      name: a key of `TASKS`.

    Raises:
      UserError: there is no task of that name.
    """
    if not isinstance(name, str) or name not in TASKS:
        near = nearest(name, TASKS) if isinstance(name, str) else ""
        raise UserError(f"task.name: expected one of {', '.join(map(repr, TASKS))}{near}, got {name!r}")
    return pkgutil.resolve_name(f"{__name__}.{TASKS[name]}")
