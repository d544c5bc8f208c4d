"""The contrastive losses one pair at a time, as their equations are written."""

import torch
from torch import Tensor


def cos(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b) / (a.norm().clamp_min(1e-8) * b.norm().clamp_min(1e-8))


def pair(a: Tensor, p: Tensor, negatives: list[Tensor], t: float) -> Tensor:
    top = (cos(a, p) / t).exp()
    return -(top / (top + sum((cos(a, k) / t).exp() for k in negatives))).log()


def mean(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).mean()


def nt_xent(z1: Tensor, z2: Tensor, t: float, *, decoupled: bool = False) -> Tensor:
    z, n, terms = [*z1, *z2], len(z1), []
    for a in range(2 * n):
        p = (a + n) % (2 * n)
        negatives = [z[k] for k in range(2 * n) if k not in (a, p)]
        if decoupled:
            terms.append(sum((cos(z[a], k) / t).exp() for k in negatives).log() - cos(z[a], z[p]) / t)  # type: ignore[union-attr]
        else:
            terms.append(pair(z[a], z[p], negatives, t))
    return mean(terms)


def marked(z: Tensor, alike: list[list[bool]], t: float, *, far: bool = False) -> Tensor:
    """SupCon and positional contrast: mean over positives, then over anchors that have any."""
    n, terms = len(z), []
    for a in range(n):
        mine = []
        for p in range(n):
            if p != a and alike[a][p]:
                rest = [z[k] for k in range(n) if k not in (a, p) and not (far and alike[a][k])]
                if rest or not far:
                    mine.append(pair(z[a], z[p], rest, t))
        if mine:
            terms.append(mean(mine))
    return mean(terms)


def partition_pairs(ids: list[list[int]], mode: str) -> list[tuple[int, int]]:
    """Ordered positives from partition, image, volume and view of each row."""
    n = len(ids)
    found = []
    for a in range(n):
        for p in range(n):
            (qa, ia, va, wa), (qp, ip, vp, wp) = ids[a], ids[p]
            if (a != p and ia == ip) or (mode == "gd" and qa == qp and va != vp and wa == wp):
                found.append((a, p))
    return found


def ring_pairs(ids: list[list[int]]) -> list[tuple[int, int]]:
    """The published pairs of sets in a ring: (v, v~), (v, w), (w, w~), (v~, w~) of each set v and the next one w."""
    volumes = sorted({row[2] for row in ids})
    found = []
    for number, v in enumerate(volumes):
        w = volumes[(number + 1) % len(volumes)]
        for q in sorted({row[0] for row in ids}):
            at = {(row[2], row[3]): i for i, row in enumerate(ids) if row[0] == q}
            links = [((v, 0), (v, 1)), ((v, 0), (w, 0)), ((w, 0), (w, 1)), ((v, 1), (w, 1))]
            for one, other in links:
                found += [(at[one], at[other]), (at[other], at[one])]
    return found


def partition_contrast(z: Tensor, ids: list[list[int]], pairs: list[tuple[int, int]], t: float) -> Tensor:
    terms = []
    for a, p in pairs:
        negatives = [z[k] for k in range(len(z)) if ids[k][0] != ids[a][0]]
        if negatives:
            terms.append(pair(z[a], z[p], negatives, t))
    return mean(terms)
