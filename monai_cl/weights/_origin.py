"""Origin of weights that others have trained: whose they are, under which licence, what to cite."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from monai_cl.weights._contract import NOTE
from monai_cl.weights.families.key_map import KeyMap

LISTS = ("apa_citations", "bibtex_citations")  # entries of a citation of nnssl, of which nnU-Net prints one


@dataclass(frozen=True)
class Origin:
    """Origin of weights that others have trained.

    Attributes:
        source: Whose they are.
        licence: Licence of the weights.
        free: False where the licence forbids uses that the common open ones allow.
        citation: Papers to cite.
        trained: Part of the network that its makers have trained, in words.
    """

    source: str
    licence: str
    free: bool = True
    citation: tuple[str, ...] = ()
    trained: str = ""

    def named(self) -> tuple[str, str]:
        """Source and licence, for a message."""
        return self.source, self.licence

    def __str__(self) -> str:
        return f"{self.source}; licence {self.licence}; cite {', '.join(self.citation) or 'its makers'}"


def origins_of(key_map: KeyMap, content: Mapping[str, Any]) -> tuple[Origin, ...]:
    """Origin of a published file, with the citations that it brings along; of our own exports, what they began from."""
    if isinstance(own := content.get(NOTE), Mapping):
        return (_OURS, *origins_in(own))
    stated = tuple(_texts(content.get("citations")))
    return (Origin(key_map.source, key_map.licence, key_map.free, (*key_map.citation, *stated), key_map.trained),)


_OURS = Origin(
    "a pretraining by monai_cl, written for nnU-Net",
    "that of the data it learnt from",
    trained="the network as it was written",
)


def origins_in(contract: Mapping[str, Any]) -> tuple[Origin, ...]:
    """Origins that a contract records: of a network that was trained on from weights of others."""
    known = {field.name for field in fields(Origin)}
    listed = contract.get("origins")
    result = []
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and {"source", "licence"} <= entry.keys():
            kept = {key: value for key, value in entry.items() if key in known}
            result.append(Origin(**{**kept, "citation": tuple(map(str, entry.get("citation", ())))}))
    return tuple(result)


def as_contract(origins: Iterable[Origin]) -> dict[str, Any]:
    """Entry for a contract; empty without an origin."""
    listed = [{**asdict(one), "citation": list(one.citation)} for one in origins]
    return {"origins": listed} if listed else {}


def _texts(citations: Any) -> Iterator[str]:
    """Citations of nnssl are texts, or lists and dictionaries of such, the latter with a name and a kind beside."""
    if isinstance(citations, str):
        yield " ".join(citations.split())
    elif isinstance(citations, Mapping):
        listed = [citations[key] for key in LISTS if citations.get(key)][:1]
        for value in listed if set(LISTS) & citations.keys() else citations.values():
            yield from _texts(value)
    elif isinstance(citations, list | tuple):
        for value in citations:
            yield from _texts(value)
