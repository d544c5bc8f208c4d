"""The volume contrast one pair at a time: the corrected form, and the three published ones as their code computes them.

Gradients flow where they flow there: ``detach`` marks what is held fixed.
"""

from collections.abc import Callable

import torch
from torch import Tensor

EPS = 1e-6


def cos(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b) / (a.norm().clamp_min(1e-8) * b.norm().clamp_min(1e-8))


def loop_reference(x: Tensor, z: Tensor, y: Tensor, x_t: Tensor, z_t: Tensor, partner: list[int]) -> dict[str, Tensor]:
    """The formulas of the docstring, one pair at a time."""
    b, s, k = y.shape
    positive, negative, inter, spread = ([torch.zeros((), dtype=x.dtype)] * b for _ in range(4))
    for i in range(b):
        j = partner[i]
        pos = neg = weight = count = torch.zeros((), dtype=x.dtype)
        ipos = ineg = iweight = icount = torch.zeros((), dtype=x.dtype)
        for n in range(s):
            length = y[i, n].norm().clamp_min(1e-12)
            for m in range(k):
                sim = cos(x[i, n], z_t[i, m].detach())
                t = y[i, n, m] / length
                pos = pos + y[i, n, m] * -torch.log(1 - (t - sim).abs() / (1 + t) + EPS)
                weight = weight + y[i, n, m]
                if y[i, n, m] <= 1e-6:
                    neg = neg - torch.log(1 - sim.clamp_min(0) + EPS)
                    count = count + 1
                q = cos(x_t[i, n], z_t[j, m]).clamp_min(0).detach()
                p = cos(x[i, n], z[j, m])
                ipos = ipos + q * -torch.log(1 - (q - p).abs() / (1 + q) + EPS)
                iweight = iweight + q
                if q == 0:
                    ineg = ineg - torch.log(1 - p.clamp_min(0) + EPS)
                    icount = icount + 1
        positive[i] = pos / (weight + EPS)
        negative[i] = neg / (count + EPS)
        inter[i] = ipos / (iweight + EPS) + ineg / (icount + EPS)
        pairs = [cos(z[i, m], z[i, n]).clamp_min(0) ** 2 for m in range(k) for n in range(m)]
        spread[i] = 2 / (k * (k - 1)) * torch.stack(pairs).sum()
    parts = {"positive": positive, "negative": negative, "inter": inter, "regularizer": spread}
    means = {name: torch.stack(values).mean() for name, values in parts.items()}
    return {"loss": torch.stack(list(means.values())).sum(), **means}


def draw(b: int = 3, s: int = 2, k: int = 4, d: int = 6, seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    overlap = torch.rand(b, s, k, generator=g) * (torch.rand(b, s, k, generator=g) > 0.4)
    overlap[..., 0] += 0.1
    return {
        "crops": torch.randn(b, s, d, generator=g),
        "bases": torch.randn(b, k, d, generator=g),
        "overlap": overlap / overlap.sum(-1, keepdim=True),
        "teacher_crops": torch.randn(b, s, d, generator=g),
        "teacher_bases": torch.randn(b, k, d, generator=g),
    }


def relu_cosines(feats: Tensor, bases: Tensor) -> Tensor:
    """Clipped cosine of each crop (S, D) with each base (K, D)."""
    return torch.stack([torch.stack([cos(f, z).clamp_min(0) for z in bases]) for f in feats])


def published_spread(z: Tensor) -> Tensor:
    """Squared clipped cosine of the pairs i < j of one volume's bases, the second held fixed."""
    total, pairs = torch.zeros((), dtype=z.dtype), 0
    for i in range(len(z) - 1):
        for j in range(i + 1, len(z)):
            total = total + cos(z[i], z[j].detach()).clamp_min(0) ** 2
            pairs += 1
    return total / pairs


def published_terms(label: Tensor, r: Tensor, *, count: bool, log: bool) -> tuple[Tensor, Tensor]:
    """Positive and negative ratio of one volume."""
    pos = weights = neg = zeros = torch.zeros((), dtype=r.dtype)
    for s in range(r.shape[0]):
        for k in range(r.shape[1]):
            if label[s, k] > 0:
                w = torch.ones((), dtype=r.dtype) if count else label[s, k]
                pos = pos - w * torch.log(1 - (label[s, k] - r[s, k]).abs() + EPS)
                weights = weights + w
            else:
                neg = neg + (-torch.log(1 - r[s, k] + EPS) if log else r[s, k] ** 2)
                zeros = zeros + 1
    return pos / (weights + EPS), neg / (zeros + EPS)


def cvpr_reference(x: Tensor, z: Tensor, y: Tensor, x_t: Tensor, z_t: Tensor) -> dict[str, Tensor]:
    """One network; every overlapping base counts as one; squared repulsion."""
    rows = []
    for i in range(len(x)):
        r = relu_cosines(x[i], z[i].detach())
        rows.append(
            (*published_terms(y[i], r, count=True, log=False), torch.zeros_like(r.sum()), published_spread(z[i]))
        )
    return mean_parts(rows)


def tenk_reference(x: Tensor, z: Tensor, y: Tensor, x_t: Tensor, z_t: Tensor) -> dict[str, Tensor]:
    """Student's crops with teacher's bases and the reverse, averaged after clipping; squared repulsion."""
    rows = []
    for i in range(len(x)):
        r = (relu_cosines(x[i], z_t[i].detach()) + relu_cosines(x_t[i].detach(), z[i])) * 0.5
        rows.append(
            (*published_terms(y[i], r, count=False, log=False), torch.zeros_like(r.sum()), published_spread(z[i]))
        )
    return mean_parts(rows)


def v2_reference(x: Tensor, z: Tensor, y: Tensor, x_t: Tensor, z_t: Tensor) -> dict[str, Tensor]:
    """Teacher's bases; logarithmic repulsion; the teacher's similarities to the next volume's bases as labels."""
    rows = []
    for i in range(len(x)):
        j = (i + 1) % len(x)
        r = relu_cosines(x[i], z_t[i].detach())
        q = relu_cosines(x_t[i], z_t[j]).detach()
        inter = published_terms(q, relu_cosines(x[i], z[j]), count=False, log=True)
        rows.append((*published_terms(y[i], r, count=False, log=True), inter[0] + inter[1], published_spread(z[i])))
    return mean_parts(rows)


def mean_parts(rows: list[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """Means over volumes of the four parts, and their sum."""
    means = [torch.stack(column).mean() for column in zip(*rows, strict=True)]
    names = ("positive", "negative", "inter", "regularizer")
    return {"loss": torch.stack(means).sum(), **dict(zip(names, means, strict=True))}


PUBLISHED: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], dict[str, Tensor]]] = {
    "cvpr": cvpr_reference,
    "10k": tenk_reference,
    "v2": v2_reference,
}
