"""Self-distillation: a student gives the answer that its slowly moving teacher gives of another view."""

import torch
from torch import Tensor

from monai_cl.losses._checks import require_finite, require_positive, require_shape
from monai_cl.losses._gather import Ranks, find_ranks, sum_over
from monai_cl.losses._plain import PlainLoss
from monai_cl.losses._rows import fixed_precision


class SelfDistillationLoss(PlainLoss):
    r"""Cross-entropy of a student to the centred, sharpened answers of a teacher, of views and of tokens.

    With :math:`t` the answers of the teacher, :math:`s` those of the student and :math:`c` a centre,
    :math:`p = \operatorname{softmax}((t - c) / T)` and
    :math:`H(q, v) = -\sum_d p_d(q) \log \operatorname{softmax}_d(s(v) / \tau)`:

    .. math::
        L_1 = \operatorname{mean}_{q \ne v} H(t_q, s_v), \qquad
        L_2 = \operatorname{mean}_{v, l} H(t_{vl}, s_{vl}), \qquad L = L_1 + L_2

    :math:`L_1` runs over the ordered pairs of views of an item, :math:`L_2` over the tokens of each view, where there
    are any. Views and tokens have centres of their own: after each call in training
    :math:`c \leftarrow m c + (1 - m)\,\bar t`, the mean over all views and processes. Centres are buffers, so that a
    checkpoint holds them; without one, one dimension would come to win everywhere. The teacher gets no gradient.

    Args:
        features: Number of dimensions :math:`D` of an answer.
        temperature: :math:`\tau` of the student.
        teacher_temperature: :math:`T`, or a pair of its first and last value.
        warmup: Share of training, in [0, 1], in which :math:`T` goes from the first value to the last, linearly.
        center_momentum: :math:`m` of the centres.
        gather: Take means and centres over all processes; the value is then that of all processes. Batches may differ
            in size from process to process.

    Shapes:
        ``student``, ``teacher`` (B, V, D), at least two views; ``student_tokens``, ``teacher_tokens`` (B, V, L, D).

    Returns:
        A dictionary: ``loss``; its parts ``views`` and, with tokens, ``tokens``; and, detached, of this process'
        targets of views ``target_entropy``, the mean of their entropies, and ``target_dimensions``, the exponential
        of the entropy of their mean: 1 when all images get one answer.

    Raises:
        ValueError: If shapes disagree, fewer than two views are given, or an option is out of range.
        NonFiniteError: If an answer is NaN or infinite.

    References:
        DINO, arXiv 2104.14294; tokens as in iBOT, arXiv 2111.07832; pairs of patients as in Alice, Jiang et al. 2023.

    Example:
        >>> student = torch.zeros(3, 2, 4)
        >>> SelfDistillationLoss(4)(student, torch.randn(3, 2, 4))["loss"]  # log D, whatever the teacher predicts
        tensor(1.3863)
    """

    center: Tensor
    token_center: Tensor

    def __init__(
        self,
        features: int,
        *,
        temperature: float = 0.1,
        teacher_temperature: float | tuple[float, float] = (0.008, 0.01),
        warmup: float = 0.3,
        center_momentum: float = 0.9,
        gather: bool = False,
    ) -> None:
        super().__init__()
        given = teacher_temperature
        ends = (float(given), float(given)) if isinstance(given, int | float) else tuple(given)
        if len(ends) != 2:
            raise ValueError(f"teacher_temperature must be a number or two of them, first and last, got {given!r}")
        require_positive(features=features, temperature=temperature)
        require_positive(**{f"teacher_temperature[{i}]": end for i, end in enumerate(ends)})
        for name, share in (("warmup", warmup), ("center_momentum", center_momentum)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {share!r}")
        self.features = features
        self.temperature = temperature
        self.teacher_temperature = ends
        self.warmup = warmup
        self.center_momentum = center_momentum
        self.gather = gather
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("token_center", torch.zeros(features))

    def extra_repr(self) -> str:
        """Temperatures, momentum of the centres and whether they are those of all processes."""
        return (
            f"{self.features}, temperature={self.temperature}, teacher_temperature={self.teacher_temperature}, "
            f"center_momentum={self.center_momentum}, gather={self.gather}"
        )

    def sharpness(self, progress: float) -> float:
        """Temperature of the teacher when a share ``progress`` of training is done.

        Example:
            >>> loss = SelfDistillationLoss(4, teacher_temperature=(0.02, 0.04), warmup=0.5)
            >>> [round(loss.sharpness(p), 3) for p in (0.0, 0.25, 0.5, 1.0)]
            [0.02, 0.03, 0.04, 0.04]
        """
        first, last = self.teacher_temperature
        return last if progress >= self.warmup else first + (last - first) * max(progress, 0.0) / self.warmup

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        student_tokens: Tensor | None = None,
        teacher_tokens: Tensor | None = None,
        *,
        progress: float = 1.0,
    ) -> dict[str, Tensor]:
        """Compute the loss, and in training move the centres.

        Args:
            student: Answers of the student to each view, (B, V, D).
            teacher: Embeddings of the teacher, (B, V, D).
            student_tokens: Answers of the student to the tokens of each view, (B, V, L, D).
            teacher_tokens: Outputs of the teacher for the same tokens.
            progress: Share of training that is done, for the temperature of the teacher.
        """
        self._check(student, teacher, student_tokens, teacher_tokens)
        with fixed_precision(student):
            ranks = find_ranks(student, gather=self.gather)
            targets = self._targets(teacher, self.center, progress)
            # b = item, q = view of the teacher, v = view of the student, d = dimension
            costs = -torch.einsum("bqd,bvd->bqv", targets, self._log_shares(student))
            other = ~torch.eye(student.shape[1], dtype=torch.bool, device=student.device)
            parts = {"views": _mean(costs[:, other], ranks)}
            if student_tokens is not None and teacher_tokens is not None:
                own = self._targets(teacher_tokens, self.token_center, progress) * self._log_shares(student_tokens)
                parts["tokens"] = _mean(-own.sum(-1), ranks)
            if self.training:
                self._move(self.center, teacher, ranks)
                if teacher_tokens is not None:
                    self._move(self.token_center, teacher_tokens, ranks)
            return {"loss": torch.stack(list(parts.values())).sum(), **parts, **_use(targets)}

    def _targets(self, teacher: Tensor, center: Tensor, progress: float) -> Tensor:
        answers = _precise(teacher.detach())
        return ((answers - center.to(answers)) / self.sharpness(progress)).softmax(-1)

    def _log_shares(self, student: Tensor) -> Tensor:
        return (_precise(student) / self.temperature).log_softmax(-1)

    @torch.no_grad()
    def _move(self, center: Tensor, teacher: Tensor, ranks: Ranks) -> None:
        rows = _precise(teacher.detach()).reshape(-1, self.features)
        # the number of rows travels with their sum
        total = sum_over(torch.cat([rows.sum(0), rows.new_tensor([len(rows)])]), ranks)
        center.lerp_((total[:-1] / total[-1]).to(center), 1 - self.center_momentum)

    def _check(
        self, student: Tensor, teacher: Tensor, student_tokens: Tensor | None, teacher_tokens: Tensor | None
    ) -> None:
        if student.ndim != 3 or student.shape[1] < 2 or student.shape[2] != self.features:
            raise ValueError(
                f"student must be answers (B, V, {self.features}) of two views or more, got {tuple(student.shape)}"
            )
        require_shape("teacher", teacher, tuple(student.shape))
        if (student_tokens is None) != (teacher_tokens is None):
            raise ValueError("student_tokens and teacher_tokens must be given together, got one of them")
        if student_tokens is not None and teacher_tokens is not None:
            b, v, d = student.shape
            if student_tokens.ndim != 4 or (*student_tokens.shape[:2], student_tokens.shape[3]) != (b, v, d):
                raise ValueError(
                    f"student_tokens must be answers ({b}, {v}, L, {d}), got {tuple(student_tokens.shape)}"
                )
            require_shape("teacher_tokens", teacher_tokens, tuple(student_tokens.shape))
        require_finite(student=student, teacher=teacher, student_tokens=student_tokens, teacher_tokens=teacher_tokens)


def _precise(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _mean(costs: Tensor, ranks: Ranks) -> Tensor:
    """Mean over all processes, with a gradient that is exact once averaged over them."""
    if ranks.world == 1:
        return costs.mean()
    total, number = sum_over(torch.stack([costs.sum(), costs.new_tensor(costs.numel())]), ranks).unbind()
    loss = costs.sum() * (ranks.world / number)
    return loss + (total / number - loss).detach()


def _use(targets: Tensor) -> dict[str, Tensor]:
    mean = targets.flatten(0, -2).mean(0)
    entropy = torch.special.entr(targets).sum(-1).mean()
    return {"target_entropy": entropy, "target_dimensions": torch.special.entr(mean).sum().exp()}
