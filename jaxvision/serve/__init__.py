"""A page on this machine on which a trained network says what it makes of photographs.

`service` does what is asked, in terms of bytes and JSON, and knows no task: what it shows are the
parts that the task's report gives (`jaxvision/tasks/shown.py`). `app` is the same behind HTTP, with
its limits; `server` binds it to a port. The `serve` extra brings what the latter two need.
"""

from jaxvision.serve.service import Service

__all__ = ["Service"]
