"""Self-distillation, against loops over pairs of views and tokens."""

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forks import in_two_processes
from torch import Tensor

from monai_cl.losses import NonFiniteError, SelfDistillationLoss

B, V, L, D = 3, 3, 4, 5
SHARP = {"temperature": 0.3, "teacher_temperature": 0.2}


def answers(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = [(B, V, D)] * 2 + [(B, V, L, D)] * 2
    student, teacher, own, others = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in shapes)
    return student, teacher, own, others


def cross_entropy(teacher: Tensor, student: Tensor, center: Tensor, *, temperature: float, sharp: float) -> Tensor:
    top = [math.exp(float(t - c) / sharp) for t, c in zip(teacher, center, strict=True)]
    below = sum((s / temperature).exp() for s in student)
    shares = [value / sum(top) for value in top]
    return -sum(p * ((s / temperature).exp() / below).log() for p, s in zip(shares, student, strict=True))


def reference(student: Tensor, teacher: Tensor, own: Tensor, others: Tensor, centers: tuple[Tensor, Tensor]) -> Tensor:
    options = {"temperature": 0.3, "sharp": 0.2}
    first = [
        cross_entropy(teacher[b, q], student[b, v], centers[0], **options)
        for b in range(B) for q in range(V) for v in range(V) if q != v
    ]  # fmt: skip
    second = [
        cross_entropy(others[b, v, l], own[b, v, l], centers[1], **options)
        for b in range(B) for v in range(V) for l in range(L)  # noqa: E741 - as in the equation
    ]  # fmt: skip
    return torch.stack(first).mean() + torch.stack(second).mean()


def test_value_and_gradient_are_those_of_loops() -> None:
    given = answers()
    student, own = given[0].requires_grad_(), given[2].requires_grad_()
    loss = SelfDistillationLoss(D, **SHARP).double()
    centers = torch.linspace(-1, 1, D, dtype=torch.float64), torch.linspace(1, 0, D, dtype=torch.float64)
    loss.center.copy_(centers[0])
    loss.token_center.copy_(centers[1])
    found, expected = loss(*given), reference(*given, centers)
    torch.testing.assert_close(found["loss"], expected)
    torch.testing.assert_close(found["views"] + found["tokens"], expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, (student, own)) for value in (found["loss"], expected)))


def test_gradients_are_those_of_differences() -> None:
    student, teacher, own, others = answers()
    loss = SelfDistillationLoss(D, **SHARP).eval()
    given = student.requires_grad_(), own.requires_grad_()
    assert torch.autograd.gradcheck(lambda s, o: loss(s, teacher, o, others)["loss"], given)


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher, own, others = (x.requires_grad_() for x in answers())
    SelfDistillationLoss(D, **SHARP)(student, teacher, own, others)["loss"].backward()
    assert student.grad is not None
    assert own.grad is not None
    assert teacher.grad is None
    assert others.grad is None


def test_centres_are_running_means_of_views_and_of_tokens() -> None:
    student, teacher, own, others = answers()
    loss = SelfDistillationLoss(D, center_momentum=0.9).double()
    loss(student, teacher, own, others)
    torch.testing.assert_close(loss.center, 0.1 * teacher.mean((0, 1)))
    torch.testing.assert_close(loss.token_center, 0.1 * others.mean((0, 1, 2)))
    loss(student, 2 * teacher)
    torch.testing.assert_close(loss.center, (0.9 * 0.1 + 0.1 * 2) * teacher.mean((0, 1)))
    torch.testing.assert_close(loss.token_center, 0.1 * others.mean((0, 1, 2)))
    assert {"center", "token_center"} == set(loss.state_dict())


def test_a_call_uses_the_centre_from_before_it() -> None:
    student, teacher, *_ = answers()
    loss = SelfDistillationLoss(D, **SHARP).double()
    first = loss(student, teacher)["loss"]
    assert loss(student, teacher)["loss"] != first
    torch.testing.assert_close(loss.eval()(student, teacher)["loss"], loss(student, teacher)["loss"])


def test_what_all_answers_have_in_common_is_taken_away() -> None:
    student, teacher, *_ = answers()
    loss = SelfDistillationLoss(D, **SHARP).double().eval()
    expected = loss(student, teacher)["loss"]
    common = torch.linspace(-3, 3, D, dtype=torch.float64)
    loss.center.copy_(common)
    torch.testing.assert_close(loss(student, teacher + common)["loss"], expected)


def test_order_of_items_views_and_dimensions_changes_nothing() -> None:
    given = answers()
    loss = SelfDistillationLoss(D, **SHARP).double().eval()
    expected = loss(*given)["loss"]
    for axis, order in ((0, [2, 0, 1]), (1, [1, 2, 0]), (-1, [4, 3, 2, 1, 0])):
        moved = [x.index_select(axis, torch.tensor(order)) for x in given]
        torch.testing.assert_close(loss(*moved)["loss"], expected)


def test_a_student_that_answers_as_the_teacher_is_left_with_the_entropy() -> None:
    teacher = torch.randn(B, 1, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64).expand(B, V, D)
    loss = SelfDistillationLoss(D, temperature=0.4, teacher_temperature=0.4).double().eval()
    found = loss(teacher, teacher)
    torch.testing.assert_close(found["loss"], found["target_entropy"])


def test_one_answer_for_all_images_is_seen_in_the_dimensions_used() -> None:
    student = torch.zeros(8, 2, 8)
    loss = SelfDistillationLoss(8).eval()
    alike = loss(student, torch.eye(8)[:1].expand(8, 2, 8))
    assert float(alike["target_dimensions"]) == pytest.approx(1, abs=1e-3)
    apart = loss(student, torch.eye(8)[:, None].expand(8, 2, 8))
    assert float(apart["target_dimensions"]) == pytest.approx(8, rel=1e-3)
    assert float(apart["target_entropy"]) == pytest.approx(0, abs=1e-3)


def test_the_teacher_warms_up_with_progress() -> None:
    student, teacher, *_ = answers()
    warming = SelfDistillationLoss(D, teacher_temperature=(0.1, 0.5), warmup=0.5).double().eval()
    for progress, temperature in ((0.0, 0.1), (0.25, 0.3), (0.5, 0.5), (0.9, 0.5)):
        fixed = SelfDistillationLoss(D, teacher_temperature=temperature).double().eval()
        torch.testing.assert_close(
            warming(student, teacher, progress=progress)["loss"], fixed(student, teacher)["loss"]
        )
    assert SelfDistillationLoss(D, teacher_temperature=(0.1, 0.5), warmup=0.0).sharpness(0.0) == 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_full(dtype: torch.dtype) -> None:
    given = [100 * x for x in answers()]
    found = SelfDistillationLoss(D)(*(x.to(dtype) for x in given))["loss"]
    assert found.dtype == torch.float32
    expected = SelfDistillationLoss(D)(*(x.to(dtype).double() for x in given))["loss"]
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"teacher_temperature": (0.1, 0.0)}, r"teacher_temperature\[1\] must be positive, got 0.0"),
        ({"teacher_temperature": (0.1,)}, "teacher_temperature must be a number or two of them"),
        ({"warmup": 1.5}, "warmup must be between 0 and 1, got 1.5"),
        ({"center_momentum": -0.1}, "center_momentum must be between 0 and 1, got -0.1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SelfDistillationLoss(D, **options)  # type: ignore[arg-type]


def test_answers_that_do_not_fit_are_refused() -> None:
    student, teacher, own, others = answers()
    loss = SelfDistillationLoss(D)
    with pytest.raises(ValueError, match=r"student must be answers \(B, V, 5\) of two views or more, got \(3, 1, 5\)"):
        loss(student[:, :1], teacher[:, :1])
    with pytest.raises(ValueError, match=r"teacher must have shape \(3, 3, 5\), got \(3, 2, 5\)"):
        loss(student, teacher[:, :2])
    with pytest.raises(ValueError, match="must be given together"):
        loss(student, teacher, own)
    with pytest.raises(ValueError, match=r"student_tokens must be answers \(3, 3, L, 5\), got \(3, 2, 4, 5\)"):
        loss(student, teacher, own[:, :2], others)
    with pytest.raises(NonFiniteError, match="teacher must be finite, got 1 of 45"):
        loss(student, _nan(teacher))


def _nan(values: Tensor) -> Tensor:
    broken = values.clone()
    broken[0, 0, 0] = torch.nan
    return broken


def run_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    loss = SelfDistillationLoss(D, gather=True).double()
    rows = slice(0, 1) if rank == 0 else slice(1, B)
    for seed in range(2):
        loss(*(x[rows] for x in answers(seed)))
    dist.barrier()
    dist.destroy_process_group()
    torch.save(loss.state_dict(), Path(folder) / f"{rank}.pt")


def test_two_processes_have_the_centres_of_one(tmp_path: Path) -> None:
    in_two_processes(run_process, str(tmp_path))
    expected = SelfDistillationLoss(D).double()
    for seed in range(2):
        expected(*answers(seed))
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected.state_dict())
