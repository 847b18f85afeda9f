"""WHO evaluates points: threads of this machine, any executor, a cluster.

An engine (``Local``, ``Executor``, ``Ray``) opens a worker pool for a job. A worker of the pool
evaluates one point after the other, or several in one vectorized pass, as the plan says. Where
workers are other processes, the driver (the process that runs the scan) sends each of them a
payload (the serialized job) once, and points in chunks.

What is evaluated belongs to ``objective``; which points come next belongs to ``sampling``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
