"""Units on Ray actors. The only folder that imports ray.

cluster.py  a Ray to work on: embedded, or one that runs already
pool.py     RayExecutor: the actors, their calls, deadlines and deaths
ledger.py   what became of every unit (no ray in it)
actor.py    what runs in a worker process
"""

from metarl.distributed.cluster import connect
from metarl.distributed.pool import RayExecutor

__all__ = ["RayExecutor", "connect"]
