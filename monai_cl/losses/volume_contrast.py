"""Volume contrast: predict where in a volume a crop lies from its similarity to a grid of base crops."""

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_cl.losses._checks import require_finite, require_indices, require_positive, require_shape, require_shares
from monai_cl.losses._plain import PlainLoss
from monai_cl.losses._rows import fixed_precision, unit_rows
from monai_cl.losses._volume_form import INTER_WEIGHTS, volume_contrast_form
from monai_cl.losses._volume_terms import negative_term, positive_term, soft_term, spread_term


class VolumeContrastLoss(PlainLoss):
    r"""Similarity of a crop to each base crop should follow how much of it the base contains.

    With :math:`s_k = \cos(x, \operatorname{sg} z_k)` the (signed) similarity of a crop :math:`x` to the teacher's base
    :math:`z_k`, the overlap :math:`y_k` and the target :math:`t = y / \lVert y \rVert_2` that similarities to
    orthogonal bases can reach, the variant ``"monai_cl"`` is

    .. math::
        L_{pos} &= \frac{\sum_{s,k} -y_k \log\left(1 - \frac{|t_k - s_k|}{1 + t_k} + \epsilon\right)}
            {\sum_{s,k} y_k + \epsilon}, \qquad
        L_{neg} = \frac{\sum_{y_k \le z} -\log(1 - \max(s_k, 0) + \epsilon)}{\#\{y_k \le z\} + \epsilon} \\
        L_{reg} &= \frac{2}{K(K-1)} \sum_{i<j} \max(\cos(z_i, z_j), 0)^2

    and :math:`L_{inter}`, the consistency of a crop with the bases of a *partner* volume, whose labels are the
    teacher's clipped similarities :math:`q_k`: the same two terms with ``q`` for both ``y`` and ``t`` and
    :math:`q_k = 0` for the negatives. The total is
    :math:`w_{intra}(L_{pos} + L_{neg}) + w_{inter} L_{inter} + w_{reg} L_{reg}`, each a mean over volumes of one ratio
    a volume, :math:`\epsilon = 10^{-6}`.

    The published forms clip the cosine, :math:`r = \max(s, 0)`, take :math:`d = |y - r|` for the distance, count
    exact zeros as negatives and send the gradient of :math:`L_{reg}` to the first base of a pair only:

    ========== ================================== =============================== ================== =====
    variant    similarity                         :math:`L_{pos}`                 :math:`L_{neg}`    inter
    ========== ================================== =============================== ================== =====
    ``"cvpr"`` student's crops and bases          mean of -log(1 - d) over y > 0  mean of r squared  no
    ``"10k"``  mean of student's crops with       mean of -log(1 - d) by y        mean of r squared  no
               teacher's bases and the reverse
    ``"v2"``   student's crops, teacher's bases   mean of -log(1 - d) by y        mean of -log(1-r)  yes
    ========== ================================== =============================== ================== =====

    Why the default differs: a clipped cosine has no gradient below zero; shares of a crop sum to one while its cosines
    to orthogonal bases lie on a unit sphere, so that a mixed crop cannot reach its label; and the last base had no
    gradient from the regulariser. Each of these is an option, and an option given wins over the variant.
    Arithmetic is in float32 whatever comes in (in float64 if any embedding is).

    Args:
        variant: ``"monai_cl"`` (the corrected form), ``"cvpr"``, ``"10k"`` or ``"v2"``.
        intra_weight: Weight of the positive and negative terms.
        inter_weight: Weight of the consistency across volumes, 1 for ``"monai_cl"`` and ``"v2"``, else 0; 0 switches
            it off and allows a batch of one volume.
        regularizer_weight: Weight of the term that spreads the bases of a volume apart.
        link: ``"signed"``: distance over 1 + t; ``"relu"``: of clipped cosines, as published; ``"softmax"``:
            cross-entropy of softmax(cosine / temperature) with the overlaps as labels, without a negative term (and
            across volumes with the teacher's softmax as labels).
        target: ``"unit"``: y over its Euclidean length; ``"overlap"``: y itself.
        weighting: Of the positive term: by ``"overlap"``, or by ``"count"``, each overlapping pair as one.
        negative: ``"log"``, :math:`-\log(1 - r)`, or ``"square"``, :math:`r^2`.
        zero_overlap: The bound z: a base with at most this share of the crop counts as a negative.
        similarity: ``"one_way"``: the student's crops with the teacher's bases; ``"two_way"``: the mean of that and
            of the teacher's crops with the student's bases, so that bases receive gradient.
        use_teacher: False compares with the student's own bases, detached, whatever teacher is given.
        regularizer: ``"symmetric"``: gradient to both bases of a pair; ``"one_sided"``: to the first.
        partners: ``"random"``: a new derangement at each call; ``"ring"``: the next volume of the batch.
        unpaired: Treatment of a volume that is alone in its batch or group: ``"raise"`` an error, or ``"skip"``
            it in the term across volumes.
        temperature: Of the softmax link.

    Shapes:
        ``crops`` (B, S, D), ``bases`` (B, K, D), ``overlap`` (B, S, K); teacher tensors like their students.

    Raises:
        ValueError: If a name is unknown, a weight negative, the temperature not positive, or an option is given that
            has no effect with ``link="softmax"``.

    References:
        VoCo, arXiv 2402.17300; Large-scale 3-D pretraining with geometric context priors, arXiv 2410.09890.

    Example:
        >>> eye = torch.eye(4)[None]                       # four orthonormal bases
        >>> mixed = torch.tensor([[[0.5, 0.5, 0.0, 0.0]]])   # a crop that lies half in each of two bases
        >>> parts = VolumeContrastLoss(inter_weight=0.0)(mixed, eye, mixed)
        >>> bool(parts["loss"].abs() < 1e-4)
        True
        >>> published = VolumeContrastLoss("v2", inter_weight=0.0)(mixed, eye, mixed)
        >>> bool(published["loss"] > 0.2)                  # the label (.5, .5) is out of reach of two cosines
        True
    """

    def __init__(
        self,
        variant: str = "monai_cl",
        *,
        intra_weight: float = 1.0,
        inter_weight: float | None = None,
        regularizer_weight: float = 1.0,
        link: str | None = None,
        target: str | None = None,
        weighting: str | None = None,
        negative: str | None = None,
        zero_overlap: float | None = None,
        similarity: str | None = None,
        use_teacher: bool | None = None,
        regularizer: str | None = None,
        partners: str | None = None,
        unpaired: str | None = None,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        self.variant = variant
        self.form = volume_contrast_form(
            variant,
            link=link,
            target=target,
            weighting=weighting,
            negative=negative,
            zero_overlap=zero_overlap,
            similarity=similarity,
            use_teacher=use_teacher,
            regularizer=regularizer,
            partners=partners,
            unpaired=unpaired,
        )
        inter_weight = INTER_WEIGHTS[variant] if inter_weight is None else inter_weight
        for name, weight in (("intra", intra_weight), ("inter", inter_weight), ("regularizer", regularizer_weight)):
            if not weight >= 0:
                raise ValueError(f"{name}_weight must be at least 0, got {weight!r}")
        require_positive(temperature=temperature)
        self.intra_weight = intra_weight
        self.inter_weight = inter_weight
        self.regularizer_weight = regularizer_weight
        self.temperature = temperature

    def extra_repr(self) -> str:
        """The variant and what it comes to."""
        return ", ".join([repr(self.variant), *(f"{name}={value!r}" for name, value in self.form._asdict().items())])

    def forward(
        self,
        crops: Tensor,
        bases: Tensor,
        overlap: Tensor,
        teacher_crops: Tensor | None = None,
        teacher_bases: Tensor | None = None,
        partner: Tensor | None = None,
        group: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the loss and its parts.

        Args:
            crops: Student embeddings of the random crops, (B, S, D).
            bases: Student embeddings of the base crops, (B, K, D).
            overlap: Share of each crop's volume inside each base, (B, S, K), rows summing to one.
            teacher_crops: Teacher embeddings of the crops; the student's own, detached, when left out.
            teacher_bases: Teacher embeddings of the bases; the student's own, detached, when left out.
            partner: For each volume the index of the volume it is compared with, (B,); chosen by ``partners``
                when left out. A volume may be given as its own partner, as the published code does with a
                batch of one.
            group: Body region or data source of each volume as a number, (B,): partners share it.

        Returns:
            ``loss`` and its unweighted parts ``positive``, ``negative``, ``inter``, ``regularizer``, all 0-dim
            float32 (float64 if the embeddings are).

        Raises:
            ValueError: If shapes disagree, an overlap is no share, a partner no index of the batch, or a volume
                without a partner meets ``inter_weight > 0``.
            NonFiniteError: If an embedding or an overlap is NaN or infinite.
        """
        _check_inputs(crops, bases, overlap, teacher_crops, teacher_bases, partner, group)
        with fixed_precision(crops):
            x, z, x_t, z_t = self._units(crops, bases, teacher_crops, teacher_bases)
            parts = self._intra(x, z, x_t, z_t, overlap.to(x.dtype))
            parts["inter"] = self._inter(x, z, x_t, z_t, partner, group)
            parts["regularizer"] = spread_term(z, one_sided=self.form.regularizer == "one_sided")
            loss = (
                self.intra_weight * (parts["positive"] + parts["negative"])
                + self.inter_weight * parts["inter"]
                + self.regularizer_weight * parts["regularizer"]
            )
        return {"loss": loss, **parts}

    def similarities(
        self, crops: Tensor, bases: Tensor, teacher_crops: Tensor | None = None, teacher_bases: Tensor | None = None
    ) -> Tensor:
        """The cosines that positive and negative term are made of, (M, B, S, K): M is 2 for ``"two_way"``, else 1."""
        with fixed_precision(crops):
            return torch.stack(self._cosines(*self._units(crops, bases, teacher_crops, teacher_bases)))

    def dead_pairs(self, similarities: Tensor, overlap: Tensor) -> Tensor:
        """Find :meth:`similarities` that get no gradient although their crop and base overlap: bool, of their shape.

        A clipped cosine has none below zero, so nothing pulls such a pair together; the links ``"signed"`` and
        ``"softmax"`` know no dead pair. A base without overlap that has a negative cosine lies where it should, and
        is none either.
        """
        dead = (overlap > self.form.zero_overlap) & (similarities <= 0)
        return dead if self.form.link == "relu" else torch.zeros_like(dead)

    def _units(
        self, crops: Tensor, bases: Tensor, teacher_crops: Tensor | None, teacher_bases: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, z, known = unit_rows(crops), unit_rows(bases), self.form.use_teacher
        x_t = unit_rows(teacher_crops).detach() if known and teacher_crops is not None else x.detach()
        z_t = unit_rows(teacher_bases).detach() if known and teacher_bases is not None else z.detach()
        if torch.float64 in (x.dtype, z.dtype, x_t.dtype, z_t.dtype):
            return x.double(), z.double(), x_t.double(), z_t.double()
        return x, z, x_t, z_t

    def _cosines(self, x: Tensor, z: Tensor, x_t: Tensor, z_t: Tensor) -> list[Tensor]:
        return [x @ z_t.mT, x_t @ z.mT] if self.form.similarity == "two_way" else [x @ z_t.mT]

    def _intra(self, x: Tensor, z: Tensor, x_t: Tensor, z_t: Tensor, y: Tensor) -> dict[str, Tensor]:
        linked = [self._link(cosine) for cosine in self._cosines(x, z, x_t, z_t)]
        s = linked[0] if len(linked) == 1 else (linked[0] + linked[1]) * 0.5
        # unit length: the best that cosines to orthogonal bases can do
        target = F.normalize(y, dim=-1) if self.form.target == "unit" else y
        return self._terms(s, label=y, target=target, zero=self.form.zero_overlap)

    def _inter(
        self, x: Tensor, z: Tensor, x_t: Tensor, z_t: Tensor, partner: Tensor | None, group: Tensor | None
    ) -> Tensor:
        if self.inter_weight == 0:
            return x.new_zeros(())
        if partner is None:
            partner = choose_partners(len(x), self.form.partners, device=x.device, group=group)
            if group is not None or len(x) < 2:
                paired = self._paired(partner, grouped=group is not None)
                if len(paired) == 0:
                    return x.new_zeros(())
                x, x_t, partner = x[paired], x_t[paired], partner[paired]
        similarity = x_t @ z_t[partner].mT
        if self.form.link == "softmax":
            q = torch.softmax(similarity / self.temperature, dim=-1).detach()
        else:
            q = similarity.relu().detach()
        terms = self._terms(self._link(x @ z[partner].mT), label=q, target=q, zero=0.0)
        return terms["positive"] + terms["negative"]

    def _paired(self, partner: Tensor, *, grouped: bool) -> Tensor:
        own = partner == torch.arange(len(partner), device=partner.device)
        if bool(own.any()) and self.form.unpaired == "raise":
            need = "the term across volumes needs at least two volumes"
            if not grouped:
                raise ValueError(
                    f"{need} in a batch, got {len(partner)}; use a larger batch, inter_weight=0 or unpaired='skip'"
                )
            raise ValueError(
                f"{need} of each group in a batch, got volumes {own.nonzero().flatten().tolist()} alone in theirs; "
                "draw batches from one group, or use inter_weight=0 or unpaired='skip'"
            )
        return (~own).nonzero().flatten()

    def _link(self, cosine: Tensor) -> Tensor:
        return cosine.relu() if self.form.link == "relu" else cosine

    def _terms(self, s: Tensor, *, label: Tensor, target: Tensor, zero: float) -> dict[str, Tensor]:
        if self.form.link == "softmax":
            return {
                "positive": soft_term(s, label, temperature=self.temperature),
                "negative": s.new_zeros(()),
            }
        negative = label <= zero
        weight = label if self.form.weighting == "overlap" else (~negative).to(s.dtype)
        return {
            "positive": positive_term(s, target, weight, signed=self.form.link == "signed"),
            "negative": negative_term(s, negative, form=self.form.negative),
        }


def _check_inputs(
    crops: Tensor,
    bases: Tensor,
    overlap: Tensor,
    teacher_crops: Tensor | None,
    teacher_bases: Tensor | None,
    partner: Tensor | None,
    group: Tensor | None,
) -> None:
    if crops.ndim != 3 or bases.ndim != 3:
        raise ValueError(
            f"crops must be (B, S, D) and bases (B, K, D), got shapes {tuple(crops.shape)} and {tuple(bases.shape)}"
        )
    if not crops.numel() or not bases.numel():
        raise ValueError(
            "crops and bases must hold a volume, a crop, a base and a feature at least, got shapes "
            f"{tuple(crops.shape)} and {tuple(bases.shape)}"
        )
    b, s, d = crops.shape
    expected = {
        "bases": (bases, (b, bases.shape[1], d)),
        "overlap": (overlap, (b, s, bases.shape[1])),
        "teacher_crops": (teacher_crops, tuple(crops.shape)),
        "teacher_bases": (teacher_bases, tuple(bases.shape)),
        "partner": (partner, (b,)),
        "group": (group, (b,)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None:
            require_shape(name, tensor, shape)
    require_finite(crops=crops, bases=bases, overlap=overlap, teacher_crops=teacher_crops, teacher_bases=teacher_bases)
    require_shares(overlap=overlap)
    if partner is not None:
        require_indices(b, partner=partner)


def random_derangement(n: int, device: torch.device | str = "cpu") -> Tensor:
    """A random permutation of ``range(n)`` that leaves no element in place (one random cycle), ``n >= 2``."""
    order = torch.randperm(n).to(device)
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)
    return partner


def ring(n: int, device: torch.device | str = "cpu") -> Tensor:
    """The next element of ``range(n)`` for each, the first for the last."""
    return torch.arange(n, device=device).roll(-1)


def partners_within(group: Tensor, kind: str) -> Tensor:
    """Index of each volume's partner, which has the same ``group``; its own index if it is alone.

    Args:
        group: Group of each volume, (B,).
        kind: ``"random"`` or ``"ring"``.
    """
    labels = group.cpu()
    partner = torch.arange(len(labels))
    for label in labels.unique():  # a batch has few groups
        members = (labels == label).nonzero().flatten()
        if len(members) > 1:
            partner[members] = members[_choose(len(members), kind, "cpu")]
    return partner.to(group.device)


def choose_partners(n: int, kind: str, *, device: torch.device | str = "cpu", group: Tensor | None = None) -> Tensor:
    """Partners of ``n`` volumes, (n,); a volume that is alone, or alone in its group, is its own."""
    if group is not None:
        return partners_within(group.to(device), kind)
    return _choose(n, kind, device) if n > 1 else torch.zeros(n, dtype=torch.long, device=device)


def _choose(n: int, kind: str, device: torch.device | str) -> Tensor:
    return ring(n, device) if kind == "ring" else random_derangement(n, device)
