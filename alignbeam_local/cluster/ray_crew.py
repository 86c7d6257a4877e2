"""A crew of Ray actors: each holds its work in a process of its own, wherever Ray places it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import sleep
from typing import Any

from ..errors import AlignBeamError
from .crew import Lost, Made, Ready, Refused, Report, Task
from .ray_cluster import nodes
from .share import Share
from .wanted import WantedPart, pieces
from .work import Failed, Host, Piece, Work

_WHY = 200  # characters of what Ray says


@dataclass
class _Actor:
    handle: Any
    node: str = ""
    bringing: Iterator[Piece] | None = None
    is_ready: bool = False


@dataclass(frozen=True)
class _Asked:
    """A question to an actor that is not answered yet; `key`: the task that it is about."""

    worker: int
    what: str
    key: int = -1


class RayHost(Host):
    """The host in an actor."""

    def node(self) -> str:
        """Where it was placed."""
        import ray

        return str(ray.get_runtime_context().get_node_id())


@dataclass
class RayCrew:
    """Actors of a cluster that this process is connected to.

    Attributes:
        work: what each is there for.
        share: what each takes of its node.
        parts: the files that may have to be brought, by name.
    """

    work: Work
    share: Share
    parts: Mapping[str, WantedPart] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._count = 0
        self._left_out: Counter[str] = Counter()  # workers, by node
        self._actors: dict[int, _Actor] = {}
        self._asked: dict[Any, _Asked] = {}  # by Ray's reference to the answer

    def places(self) -> int:
        share = self.share
        fit, alive = 0, nodes()
        for node in alive:
            by_kind = [(node.cpus, share.cpus), (node.memory, share.memory), (node.gpus, share.gpus)]
            fit += int(min(has // takes for has, takes in by_kind if takes))
        return fit - len(self._actors) - sum(self._left_out[node.id] for node in alive)

    @property
    def may_grow(self) -> bool:
        return True

    @property
    def num_placed(self) -> int:
        return sum(bool(actor.node) for actor in self._actors.values())

    def hire(self) -> int:
        import ray

        share = self.share
        remote = ray.remote(RayHost).options(
            num_cpus=share.cpus,
            memory=share.memory,
            num_gpus=share.gpus,
            max_restarts=0,  # a new one is greeted anew
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        self._count += 1
        self._actors[self._count] = _Actor(remote.remote(self.work))
        self._ask(self._count, "node")
        return self._count

    def give(self, worker: int, task: Task) -> None:
        self._ask(worker, "make", task.payload, key=task.key)

    def dismiss(self, worker: int) -> None:
        import ray

        actor = self._actors.pop(worker, None)
        if actor is not None:
            self._asked = {ref: asked for ref, asked in self._asked.items() if asked.worker != worker}
            ray.kill(actor.handle)
            self._ask_again(actor.node)

    def leave_out(self, worker: int) -> None:
        """Ray says where the next one goes: no more are begun than there are other places."""
        if worker in self._actors:
            self._left_out[self._actors[worker].node] += 1
        self.dismiss(worker)

    def close(self) -> None:
        for worker in list(self._actors):
            self.dismiss(worker)

    def reports(self, seconds: float) -> Sequence[Report]:
        import ray

        if not self._asked:
            sleep(seconds)
            return []
        found, _ = ray.wait(list(self._asked), num_returns=1, timeout=seconds)
        if found:
            found, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        return [report for ref in found for report in self._answered(ref)]

    def _answered(self, ref: Any) -> Iterator[Report]:
        import ray
        from ray.exceptions import RayError

        asked = self._asked.pop(ref, None)
        if asked is None or asked.worker not in self._actors:
            return
        try:
            answer = ray.get(ref)
        except RayError as error:
            self.dismiss(asked.worker)
            yield Lost(asked.worker, _reason(error))
            return
        if asked.what == "make":
            yield Made(asked.worker, asked.key, answer.error if isinstance(answer, Failed) else answer)
        elif isinstance(answer, Failed):
            self.leave_out(asked.worker)
            yield Refused(asked.worker, answer.error)
        else:
            yield from self._greeted(asked, answer)

    def _greeted(self, asked: _Asked, answer: Any) -> Iterator[Report]:
        """The next step of a worker that is not ready yet."""
        actor = self._actors[asked.worker]
        if asked.what == "about":
            actor.is_ready = True
            yield Ready(asked.worker, {**answer, "node": actor.node})
        elif asked.what == "node":
            actor.node = answer
            self._ask(asked.worker, "missing")
        elif asked.what == "receive":
            yield from self._bring(asked.worker)
        elif not answer:
            self._ask(asked.worker, "about")
        elif not any(other.bringing for other in self._actors.values() if other.node == actor.node):
            actor.bringing = (piece for name in answer for piece in pieces(self.parts.values(), name))
            yield from self._bring(asked.worker)

    def _bring(self, worker: int) -> Iterator[Report]:
        """The next piece; after the last one all workers of the node look again."""
        actor = self._actors[worker]
        assert actor.bringing is not None
        try:
            piece = next(actor.bringing, None)
        except AlignBeamError as error:
            self.leave_out(worker)
            yield Refused(worker, error)
            return
        if piece is None:
            actor.bringing = None
            self._ask_again(actor.node)
        else:
            self._ask(worker, "receive", *piece)

    def _ask_again(self, node: str) -> None:
        """Those of a node that wait for files of which nobody brings the rest."""
        busy = {asked.worker for asked in self._asked.values()}
        if any(actor.bringing for actor in self._actors.values() if actor.node == node):
            return
        for worker, actor in self._actors.items():
            if actor.node == node and worker not in busy and not actor.is_ready:
                self._ask(worker, "missing")

    def _ask(self, worker: int, what: str, *arguments: Any, key: int = -1) -> None:
        ref = getattr(self._actors[worker].handle, what).remote(*arguments)
        self._asked[ref] = _Asked(worker, what, key)


def _reason(error: Exception) -> str:
    """What Ray says, in a line: the last of a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in reversed(lines) if "Error" in line), lines[0] if lines else "")
    return (told or type(error).__name__)[:_WHY]
