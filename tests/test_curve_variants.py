"""Further evaluations of the networks of a curve, such as with flips: no training, and their gain in a table."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from test_curve import Pretend, config, curve_of, measure, parsed

from monai_cl.evaluation import load_curve
from monai_cl.report._label_curve import curve_tables
from monai_cl.report.curve_picture import curve_in_words

__all__ = ["config"]  # a fixture

VARIANTS = {"flips": {"tta_flips": [0, 1]}, "largest": {"keep_largest": "all"}}


class Varied(Pretend):
    """Runs no step; flips are worth 0.05."""

    def __call__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        more = 0.05 * bool(parsed(arguments).get("tta_flips"))
        self.dice = lambda given, label: 0.5 + 0.1 * given["pretrained"] + more
        return super().__call__(arguments, log, environment)

    def trained(self) -> list[str]:
        return [given["output_dir"] for given in self.given if "labels" in given]


def short(**changes: Any) -> dict[str, Any]:
    return {"budgets": [1], "seeds": [0], "convergence": False, "equal_compute": False, **changes}


def varied(**more: Any) -> dict[str, Any]:
    return {"resamples": 100, "variants": VARIANTS, **more}


def test_the_gain_of_each_variant_stands_in_a_table(config: Callable[..., Path], tmp_path: Path) -> None:
    launch = Varied()
    curve = curve_of(measure(config(**short(evaluation=varied())), launch))
    assert len(launch.trained()) == 3  # scratch and two pretraining runs, each trained once
    for arm in ("scratch", "contrast"):
        (flips,) = curve.differences(f"{arm}:flips", comparison="the same networks")
        (largest,) = curve.differences(f"{arm}:largest", comparison="the same networks")
        assert (flips.estimate, flips.reference) == (pytest.approx(0.05), arm)
        assert largest.estimate == pytest.approx(0.0)
    assert [each.estimate for each in curve.differences("contrast")] == [pytest.approx(0.1)]
    table = next(table for table in curve_tables(curve) if "of the same networks" in table.caption)
    assert "contrast:flips less contrast" in table.columns
    assert "flips" not in curve_in_words(curve).partition("less")[0]
    assert load_curve(tmp_path / "out").arm("contrast:flips").title == "contrast, flips"


def test_a_variant_that_is_added_trains_nothing_again(config: Callable[..., Path]) -> None:
    measure(config(**short(evaluation={"resamples": 100})), Varied())
    launch = Varied()
    curve = curve_of(measure(config(**short(evaluation=varied())), launch))
    assert launch.trained() == []
    assert len(launch.given) == 3 * 2
    assert curve.differences("scratch:flips", comparison="the same networks")
    again = Varied()
    measure(config(**short(evaluation=varied())), again)
    assert again.given == []


def test_networks_that_were_not_kept_are_tuned_again_once(config: Callable[..., Path]) -> None:
    measure(config(**short(evaluation={"resamples": 100}, keep_models=False)), Varied())
    launch = Varied()
    measure(config(**short(evaluation=varied(), keep_models=False)), launch)
    assert len(launch.trained()) == 3


@pytest.mark.parametrize(
    ("variants", "answer"),
    [
        ({"flips": {"tta_flip": [0]}}, r"did you mean '?tta_flips"),
        ({"a b": {"tta_flips": [0]}}, r"evaluation\.variants must have names of letters.* got 'a b'"),
        ({"flips": {}}, r"evaluation\.variants must have names .* each with settings, got 'flips'"),
        ({"flips": {"model": "x.pt"}}, r"must leave model to the curve"),
    ],
)
def test_a_mistake_in_the_variants_is_answered(
    config: Callable[..., Path], variants: dict[str, Any], answer: str
) -> None:
    with pytest.raises(ValueError, match=answer):
        measure(config(**short(evaluation=varied(variants=variants))), Varied())
