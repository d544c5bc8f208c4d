import dataclasses
import math

import numpy as np
import numpy.typing as npt
import pytest

from monai_cl.evaluation import CaseScore, Interval, converged, interval, labels_saved, paired_difference
from monai_cl.evaluation._bootstrap import Options, satterthwaite
from monai_cl.evaluation._labels_saved import _labels_reaching, _monotone
from monai_cl.evaluation.verdicts import verdict

Array = npt.NDArray[np.float64]


def table(arm: str, values: Array, budget: int = 4, runs: tuple[str, ...] = ("",)) -> list[CaseScore]:
    """Records of scores (seed, case), or (run, seed, case)."""
    cube = values if values.ndim == 3 else values[None]
    return [
        CaseScore(arm, budget, seed, f"case_{case}", float(cube[r, seed, case]), run)
        for r, run in enumerate(runs)
        for seed in range(cube.shape[1])
        for case in range(cube.shape[2])
    ]


def crossed(rng: np.random.Generator, seeds: int, cases: int, sd: tuple[float, float, float]) -> Array:
    """Normal scores with effects of seeds, of cases, and of neither alone."""
    s, c, e = (rng.standard_normal(shape) for shape in ((seeds, 1), (1, cases), (seeds, cases)))
    return sd[0] * s + sd[1] * c + sd[2] * e


def hard_cases(seed: int = 0, seeds: int = 4, cases: int = 20) -> Array:
    return 0.7 + crossed(np.random.default_rng(seed), seeds, cases, (0.02, 0.1, 0.02))


def width(result: Interval) -> float:
    return result.high - result.low


# ------------------------------------------------------------------------------------------------ paired differences


def test_a_constant_difference_has_an_interval_without_width() -> None:
    base = hard_cases()
    result = paired_difference(table("a", base + 0.03) + table("b", base), "a", "b", 4)
    assert result.estimate == pytest.approx(0.03)
    assert width(result) == pytest.approx(0.0, abs=1e-12)
    assert (result.seeds, result.cases, result.used, result.excluded, result.notes) == (4, 20, 80, 0, ())


def test_the_estimate_is_the_mean_of_paired_differences() -> None:
    a, b = hard_cases(0), hard_cases(1)
    result = paired_difference(table("a", a) + table("b", b), "a", "b", 4)
    assert result.estimate == pytest.approx(float((a - b).mean()))
    assert result.low < result.estimate < result.high


def test_swapping_arms_mirrors_the_interval() -> None:
    scores = table("a", hard_cases(0)) + table("b", hard_cases(1))
    one, other = paired_difference(scores, "a", "b", 4), paired_difference(scores, "b", "a", 4)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_pairing_narrows_the_interval() -> None:
    base = hard_cases()
    a = base + 0.02 + 0.01 * np.random.default_rng(1).standard_normal(base.shape)
    scores = table("a", a) + table("b", base)
    unpaired = math.hypot(width(interval(scores, "a", 4)), width(interval(scores, "b", 4)))
    assert width(paired_difference(scores, "a", "b", 4)) < 0.3 * unpaired


def test_the_same_networks_are_paired_by_run() -> None:
    runs = ("r", "s", "t")
    base = np.stack([hard_cases(k) + 0.1 * k for k in range(3)])
    other = base + 0.01 + 0.001 * np.random.default_rng(9).standard_normal(base.shape)
    scores = table("flips", other, runs=runs) + table("plain", base, runs=runs)
    paired = paired_difference(scores, "flips", "plain", 4, same_runs=True)
    crossed_runs = paired_difference(scores, "flips", "plain", 4)
    assert paired.estimate == pytest.approx(crossed_runs.estimate)
    assert (paired.used, paired.notes) == (base.size, ())
    assert 0 < paired.low < paired.high < 0.02
    assert width(crossed_runs) > 10 * width(paired)
    with pytest.raises(ValueError, match=r"both arms must have the same runs, got \['r', 's', 't'\] and \[''\]"):
        paired_difference(table("a", base, runs=runs) + table("b", base[0]), "a", "b", 4, same_runs=True)


def test_the_order_of_records_changes_nothing_and_the_seed_repeats() -> None:
    scores = table("a", hard_cases(0)) + table("b", hard_cases(1))
    shuffled = [scores[i] for i in np.random.default_rng(0).permutation(len(scores))]
    assert paired_difference(shuffled, "a", "b", 4) == paired_difference(scores, "a", "b", 4)
    other = paired_difference(scores, "a", "b", 4, seed=1)
    assert other != paired_difference(scores, "a", "b", 4)
    assert width(other) == pytest.approx(width(paired_difference(scores, "a", "b", 4)), rel=0.05)


def test_other_arms_and_budgets_are_ignored() -> None:
    scores = table("a", hard_cases(0)) + table("b", hard_cases(1))
    more = [*scores, CaseScore("c", 4, 99, "x", 1.0), CaseScore("a", 8, 99, "x", 1.0)]
    assert paired_difference(more, "a", "b", 4) == paired_difference(scores, "a", "b", 4)


@pytest.mark.parametrize(("seeds", "sd"), [(3, (1.0, 1.0, 0.5)), (5, (0.3, 1.0, 0.3)), (8, (1.0, 0.0, 0.3))])
def test_coverage_is_nominal_with_few_seeds(seeds: int, sd: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(seeds)
    hits = 0
    for _ in range(400):
        base = crossed(rng, seeds, 15, (5.0, 5.0, 0.0))
        scores = table("a", base + 1.0 + crossed(rng, seeds, 15, sd)) + table("b", base)
        hits += paired_difference(scores, "a", "b", 4, resamples=300).contains(1.0)
    assert 0.915 <= hits / 400 <= 0.99  # binomial standard deviation 0.011


def test_standard_error_is_the_closed_form_for_one_factor() -> None:
    effect = np.random.default_rng(0).standard_normal(30)
    result = interval(table("a", np.tile(effect, (3, 1))), "a", 4, resamples=40_000)
    assert width(result) / 2 == pytest.approx(2.045 * effect.std(ddof=1) / math.sqrt(30), rel=0.02)  # t, 29 degrees


def test_few_seeds_are_paid_for_by_width() -> None:
    effect = np.array([0.0, 0.02, 0.05])[:, None] + np.zeros((3, 10))
    result = interval(table("a", effect), "a", 4, resamples=40_000)
    assert width(result) / 2 == pytest.approx(4.303 * effect[:, 0].std(ddof=1) / math.sqrt(3), rel=0.02)  # 2 degrees


def test_confidence_widens() -> None:
    scores = table("a", hard_cases())
    assert width(interval(scores, "a", 4, confidence=0.99)) > width(interval(scores, "a", 4, confidence=0.8))


def test_pretraining_runs_are_resampled() -> None:
    base = hard_cases()
    runs = ("r0", "r1", "r2")
    same = np.stack([base + 0.02] * 3)
    apart = same + np.array([-0.02, 0.0, 0.02])[:, None, None]
    narrow = paired_difference(table("a", same, runs=runs) + table("b", base), "a", "b", 4)
    wide = paired_difference(table("a", apart, runs=runs) + table("b", base), "a", "b", 4, resamples=40_000)
    assert width(narrow) == pytest.approx(0, abs=1e-12)
    assert wide.estimate == pytest.approx(0.02)
    assert width(wide) / 2 == pytest.approx(4.303 * 0.02 / math.sqrt(3), rel=0.02)
    both = paired_difference(table("a", apart, runs=runs) + table("b", same, runs=runs), "a", "b", 4)
    assert both.used == 9 * 80


# -------------------------------------------------------------------------------------- several volumes of one patient


def frames(arm: str, values: Array, volumes: int = 2, *, named: bool = True) -> list[CaseScore]:
    """Records of scores (seed, case) in which consecutive cases are of one patient, and say so or do not."""
    return [
        dataclasses.replace(s, patient=f"p{int(s.case.removeprefix('case_')) // volumes}" if named else "")
        for s in table(arm, values)
    ]


def slow_standard_error(scores: list[CaseScore], draws: dict[str, Array]) -> float:
    """Standard deviation of the mean over cases, each resample written out case by case."""
    patients, seeds = sorted({s.patient for s in scores}), sorted({s.seed for s in scores})
    means = []
    for row in range(len(draws["patient"])):
        total = weight = 0.0
        for s in scores:
            times = draws["patient"][row, patients.index(s.patient)] * draws["seed"][row, seeds.index(s.seed)]
            total, weight = total + times * s.value, weight + times
        means.append(total / weight)
    return float(np.std(means))


def test_the_interval_is_that_of_a_slow_loop_over_patients() -> None:
    values = hard_cases(seeds=3, cases=7)
    scores = [
        dataclasses.replace(s, patient=owner)  # patients with one, two and three volumes
        for s in table("a", values)
        for owner in [{"case_0": "x", "case_1": "x", "case_2": "x", "case_3": "y", "case_4": "y"}.get(s.case, s.case)]
    ]
    options = Options(0.95, 400, 0)
    draws = options.draws({"run": 1, "reference run": 1, "seed": 3, "patient": 4})
    level = {"seed": np.full((400, 3), 1 / 3), "patient": np.full((400, 4), 1 / 4)}
    alone = [(n, slow_standard_error(scores, {**level, f: draws[f]}) ** 2) for f, n in (("seed", 3), ("patient", 4))]
    expected = options.quantile(satterthwaite(alone)) * slow_standard_error(scores, draws)
    result = interval(scores, "a", 4, resamples=400)
    assert width(result) / 2 == pytest.approx(expected, rel=1e-9)
    assert result.estimate == pytest.approx(float(values.mean()))  # over cases, not over patients
    assert (result.cases, result.patients) == (7, 4)


def test_two_equal_frames_of_a_patient_are_worth_one() -> None:
    once = hard_cases(cases=10)
    twice = np.repeat(once, 2, axis=1)
    one, both = interval(table("a", once), "a", 4), interval(frames("a", twice), "a", 4)
    assert (both.low, both.high) == (pytest.approx(one.low), pytest.approx(one.high))
    assert (one.cases, one.patients, both.cases, both.patients) == (10, 10, 20, 10)
    assert width(interval(frames("a", twice, named=False), "a", 4)) < 0.8 * width(both)


def test_labels_saved_takes_patients_as_a_whole() -> None:
    def doubled(scores: list[CaseScore], *, named: bool) -> list[CaseScore]:
        return [
            dataclasses.replace(s, case=f"{s.case}{frame}", patient=s.case if named else "")
            for s in scores
            for frame in "ab"
        ]

    scores = curve("a", [0.65, 0.7, 0.75, 0.8], 0.05, 1) + curve("b", [0.6, 0.65, 0.7, 0.75], 0.05, 2)
    once, named, unnamed = (
        labels_saved(each, "a", "b", resamples=2000)[2]
        for each in (scores, doubled(scores, named=True), doubled(scores, named=False))
    )
    assert (named.low, named.high) == (pytest.approx(once.low), pytest.approx(once.high))
    assert unnamed.high - unnamed.low < named.high - named.low


def test_a_case_of_two_patients_is_refused() -> None:
    scores = frames("a", hard_cases())
    with pytest.raises(ValueError, match="a case must be of one patient, got patient p0 and patient x for 'case_0'"):
        interval([*scores[:-20], *(dataclasses.replace(s, patient="x") for s in scores[-20:])], "a", 4)


def coverage(*, named: bool, repeats: int = 400) -> float:
    """Share of intervals that hold the truth where two frames of each of 12 patients share most of their effect."""
    rng, hits = np.random.default_rng(11), 0
    for _ in range(repeats):
        patients = np.repeat(crossed(rng, 4, 12, (0.05, 1.0, 0.0)), 2, axis=1)
        values = 1.0 + patients + 0.1 * rng.standard_normal((4, 24))
        hits += interval(frames("a", values, named=named), "a", 4, resamples=300).contains(1.0)
    return hits / repeats


def test_coverage_is_nominal_only_where_frames_of_a_patient_move_together() -> None:
    assert 0.92 <= coverage(named=True) <= 0.98  # binomial standard deviation 0.011
    assert coverage(named=False) < 0.88


@pytest.mark.parametrize(
    ("ends", "seeds", "runs", "expected"),
    [
        ((0.01, 0.02), 3, 3, "hint: 3 seeds; five and a run each are asked for before a gain is believed"),
        ((0.01, 0.02), 5, 5, "gain"),
        ((0.01, 0.02), 5, 1, "hint: 5 seeds on 1 pretraining run; five and a run each are asked for before a gain"),
        ((0.01, 0.02), 8, 5, "gain"),
        ((0.01, 0.02), 3, None, "hint: 3 seeds; five are asked for before a gain is believed"),
        ((-0.02, -0.01), 5, 5, "loss"),
        ((-0.02, -0.01), 1, 1, "hint of a loss: 1 seed; five and a run each are asked for before a loss is believed"),
        ((-0.02, 0.01), 3, 3, "no difference shown"),
        ((math.nan, math.nan), 1, 1, "undefined"),
    ],
)
def test_a_gain_needs_five_seeds_and_a_run_each(
    ends: tuple[float, float], seeds: int, runs: int | None, expected: str
) -> None:
    assert verdict(*ends, seeds=seeds, runs=runs).startswith(expected)


def test_a_gain_needs_several_patients_that_are_known() -> None:
    shown = {"low": 0.1, "high": 0.2}
    assert verdict(**shown, seeds=5, runs=5, clustered=False) == (
        "hint: patients not known; the patients of the cases are asked for before a gain is believed"
    )
    assert verdict(**shown, seeds=5, runs=5, patients=2) == "gain"
    assert verdict(**shown, seeds=5, runs=5, patients=1) == (
        "hint: 1 patient; several patients are asked for before a gain is believed"
    )
    assert verdict(-0.2, -0.1, seeds=3, runs=3, patients=1) == (
        "hint of a loss: 3 seeds, 1 patient; five and a run each, and several patients are asked for before a loss is "
        "believed"
    )


@pytest.mark.parametrize(
    ("ends", "seeds", "expected"),
    [
        ((-6.9, -4.9), 5, "gain"),
        ((4.9, 6.9), 5, "loss"),
        ((-6.9, -4.9), 3, "hint: 3 seeds; five and a run each are asked for before a gain is believed"),
        ((4.9, 6.9), 3, "hint of a loss: 3 seeds; five and a run each are asked for before a loss is believed"),
        ((-6.9, 0.1), 5, "no difference shown"),
    ],
)
def test_a_shorter_distance_is_the_gain(ends: tuple[float, float], seeds: int, expected: str) -> None:
    assert verdict(*ends, seeds=seeds, runs=seeds, smaller_is_better=True) == expected


# ------------------------------------------------------------------------------------------------ what cannot be told


def test_undefined_scores_are_excluded_in_pairs_and_counted() -> None:
    a, b = hard_cases(0), hard_cases(1)
    a[0, 0] = b[1, 3] = np.nan
    a[:, 5] = b[:, 5] = np.nan  # the class is empty in this case
    result = paired_difference(table("a", a) + table("b", b), "a", "b", 4)
    assert result.estimate == pytest.approx(float(np.nanmean(a - b)))
    assert (result.excluded, result.used, result.cases) == (6, 74, 19)


def test_excluding_a_case_everywhere_equals_not_having_it() -> None:
    a, b = hard_cases(0), hard_cases(1)
    without = paired_difference(table("a", a[:, :-1]) + table("b", b[:, :-1]), "a", "b", 4)
    a[:, -1] = np.nan
    result = paired_difference(table("a", a) + table("b", b), "a", "b", 4)
    assert (result.low, result.high) == pytest.approx((without.low, without.high))


def test_a_single_seed_says_what_it_cannot_tell() -> None:
    scores = table("a", hard_cases(0)[:1], runs=("r0",)) + table("b", hard_cases(1)[:1])
    result = paired_difference(scores, "a", "b", 4)
    assert result.notes == (
        "one seed: the spread between seeds is unknown, the interval holds for this seed alone",
        "one pretraining run (r0): the spread between pretraining runs is unknown",
    )
    assert result.low < result.high


def test_a_single_score_has_no_interval() -> None:
    result = interval(table("a", np.ones((1, 1))), "a", 4)
    assert math.isnan(result.low)
    assert math.isnan(result.high)
    assert not result.contains(1.0)
    assert len(result.notes) == 2


def test_missing_cells_are_named() -> None:
    scores = table("a", hard_cases(), runs=("r0",)) + table("b", hard_cases())
    gone = [s for s in scores if not (s.arm == "b" and s.seed == 2 and s.case == "case_7")]
    with pytest.raises(ValueError, match=r"missing are 1 scores: arm 'b', budget 4, seed 2, case 'case_7'; finish"):
        paired_difference(gone, "a", "b", 4)
    gone = [s for s in scores if not (s.arm == "a" and s.seed == 3)]
    with pytest.raises(ValueError, match=r"missing are 20 .* arm 'a', budget 4, run 'r0', seed 3, case .* and 15 more"):
        paired_difference(gone, "a", "b", 4)


def test_bad_tables_are_refused() -> None:
    scores = table("scratch", hard_cases()) + table("pretrained", hard_cases())
    with pytest.raises(ValueError, match=r"arm must be one of .* got 'pretraned' \(did you mean 'pretrained'\?\)"):
        paired_difference(scores, "pretraned", "scratch", 4)
    with pytest.raises(ValueError, match=r"budget of arm 'scratch' must be one of \[4\], got 8"):
        interval(scores, "scratch", 8)
    with pytest.raises(ValueError, match="got two for arm 'scratch', budget 4, seed 0, case 'case_0'"):
        interval([*scores, scores[0]], "scratch", 4)
    with pytest.raises(ValueError, match="a score must be finite, or NaN where undefined, got inf"):
        interval([dataclasses.replace(scores[0], value=math.inf)], "scratch", 4)
    with pytest.raises(ValueError, match="arm and reference must differ, got 'scratch' twice"):
        paired_difference(scores, "scratch", "scratch", 4)
    with pytest.raises(ValueError, match="no pair of scores is defined, got NaN for all 6"):
        interval(table("a", np.full((2, 3), np.nan)), "a", 4)


def test_bad_options_are_refused() -> None:
    scores = table("a", hard_cases())
    with pytest.raises(ValueError, match="confidence must be between 0 and 1, got 95"):
        interval(scores, "a", 4, confidence=95)
    with pytest.raises(ValueError, match="resamples must be at least 100, got 10"):
        interval(scores, "a", 4, resamples=10)
    with pytest.raises(ValueError, match="tolerance must be at least 0, got -1"):
        converged(scores, "a", "b", 4, tolerance=-1)


# --------------------------------------------------------------------------------------------------------- convergence


def noisy_gain(gain: float, noise: float) -> list[CaseScore]:
    base = hard_cases()
    spread = noise * crossed(np.random.default_rng(3), 4, 20, (0.5, 0.5, 1.0))
    return table("n", base) + table("2n", base + gain + spread - spread.mean())


@pytest.mark.parametrize(
    ("gain", "noise", "expected", "reason"),
    [
        (0.0, 0.003, True, "lies below the tolerance 0.01"),
        (0.004, 0.001, True, "lies below the tolerance 0.01"),
        (-0.05, 0.001, True, "lies below the tolerance 0.01"),
        (0.01, 0.05, None, "holds 0, but also gains above the tolerance 0.01: more seeds would decide"),
        (0.03, 0.003, False, "lies above 0 and reaches the tolerance 0.01"),
    ],
)
def test_convergence(gain: float, noise: float, expected: bool | None, reason: str) -> None:
    result = converged(noisy_gain(gain, noise), "n", "2n", 4, tolerance=0.01)
    assert result.converged is expected
    assert reason in result.reason
    assert result.difference.estimate == pytest.approx(gain)


def test_convergence_is_not_claimed_where_the_interval_is_undefined() -> None:
    scores = table("n", np.ones((1, 1))) + table("2n", np.ones((1, 1)))
    result = converged(scores, "n", "2n", 4, tolerance=0.01)
    assert result.converged is None
    assert result.verdict == "undecided"
    assert "undefined: one seed" in result.reason


# -------------------------------------------------------------------------------------------------------- labels saved

BUDGETS = (1, 2, 4, 8)


def curve(arm: str, means: list[float], noise: float = 0.0, seed: int = 0) -> list[CaseScore]:
    rng = np.random.default_rng(seed)
    base = crossed(np.random.default_rng(5), 4, 12, (0.01, 0.05, 0.0))
    base -= base.mean()
    records = []
    for budget, mean in zip(BUDGETS, means, strict=True):
        records += table(arm, mean + base + noise * rng.standard_normal(base.shape), budget)
    return records


def test_a_curve_shifted_by_one_doubling_saves_half_the_labels() -> None:
    scores = curve("a", [0.65, 0.70, 0.75, 0.80]) + curve("b", [0.60, 0.65, 0.70, 0.75])
    first, *rest = labels_saved(scores, "a", "b")
    assert [entry.saved for entry in rest] == pytest.approx([1.0, 2.0, 4.0])
    assert [entry.needed for entry in rest] == pytest.approx([1.0, 2.0, 4.0])
    assert [entry.target for entry in rest] == pytest.approx([0.65, 0.70, 0.75])
    assert [(entry.low, entry.high) for entry in rest[1:]] == [pytest.approx((s, s)) for s in (2.0, 4.0)]
    assert math.isnan(first.saved)
    assert (first.low, first.high) == (pytest.approx(0.0), math.inf)  # at least the 1 label of the reference, less 1
    assert "undefined: the arm reaches 0.6 with fewer than 1 labels, the least tried" in first.notes


def test_an_arm_that_never_gets_there_is_said_to() -> None:
    scores = curve("a", [0.5, 0.52, 0.54, 0.56]) + curve("b", [0.51, 0.6, 0.7, 0.8])
    entries = labels_saved(scores, "a", "b")
    assert entries[0].saved == pytest.approx(1 - math.sqrt(2))  # halfway between 1 and 2 on the logarithmic axis
    assert math.isnan(entries[3].needed)
    assert "undefined: the arm does not reach 0.8 with 8 labels, the most tried" in entries[3].notes
    assert (entries[3].low, entries[3].high) == (-math.inf, pytest.approx(0.0))
    assert "the lower end is open: the arm may need more than 8 labels, the most tried" in entries[3].notes


def test_equal_arms_save_nothing_even_where_the_curve_is_flat_or_falls() -> None:
    means = [0.6, 0.7, 0.68, 0.8]
    for entry in labels_saved(curve("a", means) + curve("b", means), "a", "b"):
        assert entry.saved == pytest.approx(0.0, abs=1e-9)
        assert (entry.low, entry.high) == pytest.approx((0.0, 0.0), abs=1e-9)


def test_the_interval_holds_the_truth_and_shrinks_with_the_noise() -> None:
    a, b = [0.65, 0.70, 0.75, 0.80], [0.60, 0.65, 0.70, 0.75]
    loud, quiet = (
        labels_saved(curve("a", a, noise, 1) + curve("b", b, noise, 2), "a", "b", resamples=2000)[2]
        for noise in (0.05, 0.01)
    )
    for entry in (loud, quiet):
        assert entry.low <= 2.0 <= entry.high
    assert quiet.high - quiet.low < loud.high - loud.low


def test_an_open_end_is_infinite_and_said() -> None:
    scores = curve("a", [0.65, 0.7, 0.75, 0.8], 0.05, 1) + curve("b", [0.6, 0.65, 0.7, 0.75], 0.05, 2)
    entry = labels_saved(scores, "a", "b", resamples=2000)[1]
    assert entry.high == math.inf
    assert "the upper end is open: the arm may need fewer than 1 labels, the least tried" in entry.notes


def test_budgets_of_the_two_arms_may_differ_and_order_changes_nothing() -> None:
    scores = curve("a", [0.65, 0.70, 0.75, 0.80]) + [s for s in curve("b", [0.6, 0.65, 0.7, 0.75]) if s.budget != 2]
    entries = labels_saved(scores, "a", "b")
    assert [entry.budget for entry in entries] == [1, 4, 8]
    assert entries[1].saved == pytest.approx(2.0)
    assert labels_saved(scores[::-1], "a", "b")[1:] == entries[1:]


def test_undefined_cells_leave_every_curve() -> None:
    scores = curve("a", [0.65, 0.70, 0.75, 0.80]) + curve("b", [0.6, 0.65, 0.7, 0.75])
    holes = [dataclasses.replace(s, value=math.nan) if (s.seed, s.case) == (1, "case_3") else s for s in scores]
    entry = labels_saved(holes, "a", "b")[2]
    assert entry.excluded == 1
    assert entry.saved == pytest.approx(2.0)


def test_curves_need_two_budgets_and_complete_cells() -> None:
    scores = curve("a", [0.65, 0.70, 0.75, 0.80]) + curve("b", [0.6, 0.65, 0.7, 0.75])
    with pytest.raises(ValueError, match=r"at least two budgets, all positive, got \[4\] for 'b'"):
        labels_saved([s for s in scores if s.arm == "a" or s.budget == 4], "a", "b")
    with pytest.raises(ValueError, match="missing are 1 scores: arm 'a', budget 8, seed 3, case 'case_11'"):
        labels_saved([s for s in scores if (s.arm, s.budget, s.seed, s.case) != ("a", 8, 3, "case_11")], "a", "b")
    with pytest.raises(ValueError, match=r"arm must be one of \['a', 'b'\], got 'c'"):
        labels_saved(scores, "a", "c")
    nothing = [dataclasses.replace(s, value=math.nan) for s in scores]
    with pytest.raises(ValueError, match="no seed and case has a score in every arm and budget"):
        labels_saved(nothing, "a", "b")


def pool_adjacent_violators(y: list[float]) -> list[float]:
    blocks: list[tuple[float, int]] = []
    for value in y:
        blocks.append((value, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (v1, n1), (v0, n0) = blocks.pop(), blocks.pop()
            blocks.append(((v0 * n0 + v1 * n1) / (n0 + n1), n0 + n1))
    return [value for value, count in blocks for _ in range(count)]


def test_isotonic_regression_equals_pooling_of_adjacent_violators() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 6))
    expected = np.array([pool_adjacent_violators(list(row)) for row in rows])
    np.testing.assert_allclose(_monotone(rows), expected, atol=1e-12)


def test_labels_reaching_inverts_the_interpolation() -> None:
    budgets, rising = np.array([1.0, 2.0, 4.0, 16.0]), np.array([[0.1, 0.3, 0.3, 0.9]])
    labels = np.array([[1.0, 1.3, 2.0, 7.0, 16.0]])
    target = np.interp(np.log2(labels), np.log2(budgets), rising[0])
    np.testing.assert_allclose(_labels_reaching(target, budgets, rising), labels)
    outside = _labels_reaching(np.array([[0.05, 0.95]]), budgets, rising)
    np.testing.assert_array_equal(outside, [[-np.inf, np.inf]])
