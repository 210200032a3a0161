"""Could this history have happened one transaction after the other?

The last transaction has read everything, and each object's longest content that anybody saw is the
order in which its writers committed. (1) From that alone:

    lost append            acknowledged, but not there
    torn commit            not acknowledged; a part of it is there, another is not
    aborted read           there, but of a transaction that surely failed (G1a)
    intermediate read      part of what a transaction wrote to one object was seen without the rest (G1b)
    incompatible order     two contents of one object, neither of which is the beginning of the other
    appended twice, unknown element, unique key taken twice, contradiction

(2) The dependency graph (Adya 1999) has an edge from a transaction to each that must come after it:

    ww   it wrote the element before the other's
    wr   the other read what it wrote
    rw   it read the object as it was before the other wrote (or did not find it in a range)
    rt   it had ended before the other began. (Promised is more than serializability: a transaction
         sees all that was acknowledged before it began. Fails only what the others leave whole.)

A cycle means that no order of the transactions explains what they saw. Its edges name the anomaly.
For `rt`, a chain of moments stands between the transactions, one for each end of one, so that the graph
stays small: a transaction leads to the moment it ended at, the last moment before it began to a transaction.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import networkx

from proof.history import Transaction
from proof.observations import Elements, Observations, observe, written_lists

_CYCLES_TOLD: Final = 20
_EDGES_TRIED: Final = 200


class Anomaly(NamedTuple):
    """Something that must not be: what it is called, and the case."""

    kind: str
    text: str


@dataclass(slots=True)
class Verdict:
    """What was looked at, and what was found."""

    anomalies: list[Anomaly] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def kinds(self) -> set[str]:
        return {anomaly.kind for anomaly in self.anomalies}


class Edge(NamedTuple):
    kind: str
    """ww, wr, rw or rt."""
    object: str
    by_range: bool = False


def check(transactions: Sequence[Transaction]) -> Verdict:
    """All anomalies of a history whose last transaction has read everything."""
    return _Check(transactions).verdict


class _Check:
    def __init__(self, transactions: Sequence[Transaction]) -> None:
        self.verdict = Verdict()
        lists = written_lists(transactions)
        self._seen = [observe(transaction, lists) for transaction in transactions]
        self._writers = {
            element: seen for seen in self._seen for elements in seen.written.values() for element in elements
        }
        self._order = self._orders()
        self._visible = {element for order in self._order.values() for element in order}
        self._contradictions()
        self._contents()
        self._acknowledged()
        graph = self._graph()
        self._cycles(graph)
        if not self.verdict.anomalies:
            self._add_real_time(graph)
            self._cycles(graph)
        self._count(transactions, graph)

    def _found(self, kind: str, text: str) -> None:
        self.verdict.anomalies.append(Anomaly(kind, text))

    # Contents

    def _orders(self) -> dict[str, Elements]:
        """Each object's elements in the order of their commits: the longest content that was seen."""
        longest: dict[str, Elements] = {}
        for seen in self._seen:
            for object, elements in seen.prefix.items():
                if len(elements) >= len(longest.get(object, ())):
                    longest[object] = elements
        return longest

    def _contradictions(self) -> None:
        for seen in self._seen:
            for text in seen.contradictions:
                self._found("contradiction", f"{seen.transaction.name}: {text}")

    def _contents(self) -> None:
        for object, order in self._order.items():
            if len(set(order)) < len(order):
                self._found("appended twice", f"{object} is {order}")
            if object.startswith("name ") and len(order) > 1:
                self._found("unique key taken twice", f"{object} is {order}")
            for element in set(order):
                writer = self._writers.get(element)
                if writer is None or element not in writer.written.get(object, ()):
                    self._found("unknown element", f"{element} in {object}")
                elif writer.transaction.outcome == "failed":
                    self._found("aborted read", f"{element} of {writer.transaction.name} in {object}")
        for seen in self._seen:
            for object, elements in seen.prefix.items():
                self._content(seen, object, elements)

    def _content(self, seen: Observations, object: str, elements: Elements) -> None:
        order, length = self._order[object], len(elements)
        if order[:length] != elements:
            name = seen.transaction.name
            self._found("incompatible order", f"{object} is {elements} for {name}, and {order}")
        elif 0 < length < len(order):
            writer = self._writers.get(order[length - 1])
            if writer is not None and writer is self._writers.get(order[length]):
                text = f"{seen.transaction.name} saw {object} within {writer.transaction.name}"
                self._found("intermediate read", text)

    def _acknowledged(self) -> None:
        inserted: dict[str, list[str]] = {}
        for seen in self._seen:
            if not self._committed(seen):
                continue
            known = seen.transaction.outcome == "committed"
            for object, elements in seen.written.items():
                if object.startswith("name "):
                    inserted.setdefault(object, []).extend(elements)
                lost = [element for element in elements if element not in self._visible]
                if lost:
                    kind = "lost append" if known else "torn commit"
                    self._found(kind, f"{lost} of {seen.transaction.name} to {object}")
        for object, elements in inserted.items():
            if len(elements) > 1:
                self._found("unique key taken twice", f"{object} was given to {elements}")

    # Order

    def _committed(self, seen: Observations) -> bool:
        """Did it happen? One of which that is not known did, if anybody saw it."""
        if seen.transaction.outcome == "unknown":
            return any(element in self._visible for own in seen.written.values() for element in own)
        return seen.transaction.outcome == "committed"

    def _graph(self) -> Any:
        graph = networkx.DiGraph()
        graph.add_nodes_from(seen.transaction.name for seen in self._seen)
        for object, order in self._order.items():
            for earlier, later in itertools.pairwise(order):
                self._edge(graph, self._by(earlier), self._by(later), Edge("ww", object))
        for seen in self._seen:
            for object, elements in seen.prefix.items():
                self._reads(graph, seen, object, len(elements), len(elements), False)
            for object in seen.at_least.keys() | seen.at_most.keys():
                least, most = seen.at_least.get(object, 0), seen.at_most.get(object)
                self._reads(graph, seen, object, least, most, most is not None)
        return graph

    def _by(self, element: str) -> str | None:
        """The transaction that wrote an element, if it counts."""
        writer = self._writers.get(element)
        return writer.transaction.name if writer is not None and self._committed(writer) else None

    def _reads(
        self, graph: Any, seen: Observations, object: str, least: int, most: int | None, by_range: bool
    ) -> None:
        """The object held at least `least` and at most `most` elements when it was read."""
        order, reader = self._order.get(object, ()), seen.transaction.name
        if 0 < least <= len(order):
            self._edge(graph, self._by(order[least - 1]), reader, Edge("wr", object))
        if most is not None and most < len(order):
            self._edge(graph, reader, self._by(order[most]), Edge("rw", object, by_range))

    def _edge(self, graph: Any, earlier: str | None, later: str | None, edge: Edge) -> None:
        if earlier is None or later is None or earlier == later:
            return
        self.verdict.counts[f"{edge.kind} edges"] += 1
        if not graph.has_edge(earlier, later):
            graph.add_edge(earlier, later, edge=edge)

    def _add_real_time(self, graph: Any) -> None:
        ends = sorted(seen.transaction.ended for seen in self._seen)
        moments = [f"moment {number}" for number in range(len(ends))]
        edge = Edge("rt", "")
        for earlier, later in itertools.pairwise(moments):
            graph.add_edge(earlier, later, edge=edge)
        for seen in self._seen:
            transaction = seen.transaction
            if transaction.outcome != "unknown":
                graph.add_edge(transaction.name, moments[bisect_left(ends, transaction.ended)], edge=edge)
            before = bisect_left(ends, transaction.began)
            if before:
                graph.add_edge(moments[before - 1], transaction.name, edge=edge)

    def _cycles(self, graph: Any) -> None:
        components = [found for found in networkx.strongly_connected_components(graph) if len(found) > 1]
        for component in components[:_CYCLES_TOLD]:
            cycle = _shortest_cycle(graph.subgraph(component))
            self._found(_name_of([edge for _, edge in cycle]), _told(cycle))

    def _count(self, transactions: Iterable[Transaction], graph: Any) -> None:
        counts = self.verdict.counts
        for transaction in transactions:
            counts["transactions"] += 1
            counts[transaction.outcome] += 1
            for operation in transaction.operations:
                counts[type(operation).__name__] += 1
        counts["objects"] = len(self._order)
        counts["elements in their order"] = len(self._visible)
        counts["anomalies"] = len(self.verdict.anomalies)


def _shortest_cycle(graph: Any) -> list[tuple[str, Edge]]:
    """A short cycle of a strongly connected graph: each node with the edge to the next one."""
    best: list[str] = []
    for earlier, later in list(graph.edges)[:_EDGES_TRIED]:
        path = networkx.shortest_path(graph, later, earlier)
        if not best or len(path) < len(best):
            best = path
    return [(one, graph.edges[one, two]["edge"]) for one, two in zip(best, [*best[1:], best[0]], strict=True)]


def _name_of(edges: Sequence[Edge]) -> str:
    """What the textbooks call a cycle of these edges."""
    kinds = Counter(edge.kind for edge in edges)
    if kinds["rt"]:
        return "stale read"
    if not kinds["rw"]:
        return "circular information flow" if kinds["wr"] else "dirty write"
    if any(edge.by_range for edge in edges):
        return "phantom"
    if kinds["rw"] > 1:
        return "write skew"
    if kinds["wr"]:
        return "read skew"
    return "lost update"


def _told(cycle: Sequence[tuple[str, Edge]]) -> str:
    steps = [
        f"{name} -{edge.kind}({edge.object})-> " for name, edge in cycle if not name.startswith("moment")
    ]
    return "".join(steps) + cycle[0][0]
