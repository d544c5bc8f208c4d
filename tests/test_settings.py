"""Settings on a command line: flags, numbers, texts and null, whatever Python would make of them."""

import json
import os
from pathlib import Path

import pytest
import yaml
from forks import SECONDS, Fork
from monai.bundle import ConfigParser

from monai_cl import bundles, recipes
from monai_cl._overrides import lay, options_of, pairs_of
from monai_cl._settings import MAY_BE_NULL, kind_of, read_flag
from monai_cl.evaluation._steps import Step

PROGRAM = str(Path("site-packages", "monai", "bundle", "__main__.py"))
TRUE = ["true", "True", "TRUE", "yes", "on", "1", "'true'"]
BASES = {
    "evaluate": ["train"],
    "denoise": ["train"],
    "selftrain": ["train"],
    "small": ["pretrain", "train"],
    "multi_gpu": ["pretrain", "train"],
    "multi_gpu_train": ["train"],
}
FALSE = ["false", "False", "FALSE", "no", "off", "0", '"false"']


def steps():
    """Config files of each step of each bundle, overlays laid on what they may be laid on."""
    for name in bundles.names():
        folder = bundles.path(name) / "configs"
        for file in sorted(folder.glob("*.yaml")):
            if "bundle_root" in yaml.safe_load(file.read_text()):
                yield pytest.param([str(file)], id=f"{name}-{file.stem}")
                continue
            for base in BASES.get(file.stem, ["pretrain"]):
                yield pytest.param([str(folder / f"{base}.yaml"), str(file)], id=f"{name}-{base}-{file.stem}")


def leaves(config, prefix=""):
    """Every id of a configuration that holds a single value."""
    for key, value in config.items() if isinstance(config, dict) else enumerate(config):
        if isinstance(value, dict | list):
            yield from leaves(value, f"{prefix}{key}#")
        elif key != "_meta_":
            yield f"{prefix}{key}", value


def read(files, *arguments):
    return bundles.split_command([*files, *arguments])[1]


def given(parser, *arguments):
    """Overrides as a command line gives them to a configuration that is read already."""
    return lay(options_of(arguments), parser, dict(pairs_of(arguments)))


def parser_of(files):
    parser = ConfigParser()
    parser.read_config(files)
    return parser


@pytest.mark.parametrize("files", list(steps()))
def test_every_flag_of_every_config_is_read_in_every_spelling(files):
    parser = parser_of(files)
    flags = [key for key, value in leaves(parser.get()) if kind_of(value, parser.get) is bool]
    assert len(flags) >= 2
    for spellings, expected in ((TRUE, True), (FALSE, False)):
        for spelling in spellings:
            found = given(parser, *(f"--{key}={spelling}" for key in flags))
            assert found == dict.fromkeys(flags, expected), spelling
    for key in flags:
        with pytest.raises(
            ValueError, match=rf"^{key} must be true or false \(or yes, no, on, off, 1, 0\), got 'flase'"
        ):
            lay({key: "flase"}, parser)


@pytest.mark.parametrize("files", list(steps()))
def test_a_number_for_a_name_is_taken_as_text_by_every_text_and_path(files):
    parser = parser_of(files)
    kinds = {key: MAY_BE_NULL.get(key) if v is None else kind_of(v, parser.get) for key, v in parser.get().items()}
    texts = [key for key, kind in kinds.items() if kind is str]
    assert {"dataset_dir", "datalist", "output_dir"} <= set(texts) | {"datalist"}
    for name in ("2024", "1e3", "007", "1_0", "0x10", "True", "study#1", "a,b", "3-4", "-1"):
        assert given(parser, *(f"--{key}={name}" for key in texts)) == dict.fromkeys(texts, name)


@pytest.mark.parametrize("files", list(steps()))
def test_every_setting_that_is_null_says_what_it_is_otherwise(files):
    config = parser_of(files).get()
    assert {key for key, value in config.items() if value is None} <= set(MAY_BE_NULL)
    lines = [line for file in files for line in Path(file).read_text().splitlines() if "null " in line]
    commented = [line.partition(":")[0] for line in lines]
    assert {key for key in commented if key in config and "recipe" not in key} <= set(MAY_BE_NULL)
    for key in (key for key in MAY_BE_NULL.keys() & config.keys() if not isinstance(config[key], str)):
        for spelling in ("null", "None", "none"):
            assert given(parser_of(files), f"--{key}", spelling) == {key: None}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (["--max_epochs", "1e2"], {"max_epochs": 100}),
        (["--learning_rate", "1"], {"learning_rate": 1}),
        (["--num-workers=0"], {"num_workers": 0}),
        (["--dense_anchors", "null"], {"dense_anchors": None}),
        (["--recipe_options", "{spacing: null}"], {"recipe_options": {"spacing": None}}),
        (["--crop_size", "64,64,32"], {"crop_size": [64, 64, 32]}),
        (["--sections", "['training', 'unlabelled']"], {"sections": ["training", "unlabelled"]}),
        (["--steps", "12"], {"steps": 12}),
        (["--output_dir", "$@bundle_root + '/x'"], {"output_dir": "$@bundle_root + '/x'"}),
        (["--max_epochs", "@epoch_length"], {"max_epochs": "@epoch_length"}),
        (["--device", "cpu"], {"device": "cpu"}),
        (["--dataset_dir", "'2024'"], {"dataset_dir": "2024"}),
        (["--network_def#use_conv_final", "no"], {"network_def#use_conv_final": False}),  # not in the config
        (["--network_def#act", "null"], {"network_def#act": None}),
        (["--noresume"], {"resume": False}),
        (["--resume"], {"resume": True}),
    ],
)
def test_a_value_is_of_the_kind_of_its_default(override, expected):
    configs = bundles.path("volume_contrast") / "configs"
    found = read([str(configs / "pretrain.yaml"), str(configs / "volume_dense.yaml")], *override)
    assert found == expected
    assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]


@pytest.mark.parametrize(
    ("override", "match"),
    [
        (["--max_epochs", "many"], "^max_epochs must be a whole number, got 'many'$"),
        (["--max_epochs", "1.5"], r"^max_epochs must be a whole number, got 1\.5$"),
        (["--max_epochs", "true"], "^max_epochs must be a whole number, got True$"),
        (["--max_epochs", "null"], "^max_epochs must not be null; its default is 100$"),
        (["--learning_rate", "0,001"], "^learning_rate must be a number, got '0,001'$"),
        (["--crop_size", "64x64x64"], r'^crop_size must be a list such as "\[64, 64, 64\]", got \'64x64x64\'$'),
        (["--recipe_options", "spacing"], "^recipe_options must be a dictionary such as"),
        (["--resume", "2"], "^resume must be true or false .*, got 2$"),
    ],
)
def test_a_value_of_another_kind_is_refused_with_what_is_allowed(override, match):
    with pytest.raises(ValueError, match=match):
        read([str(bundles.path("volume_contrast") / "configs" / "pretrain.yaml")], *override)


@pytest.mark.parametrize("key", ["key_map", "weights_key"])
def test_texts_may_be_null_where_that_has_a_meaning(key):
    parser = parser_of([str(bundles.path("volume_contrast") / "configs" / "train.yaml")])
    assert given(parser, f"--{key}", "None") == given(parser, f"--{key}", "null") == {key: None}


def test_a_reference_in_a_circle_has_no_kind():
    assert kind_of("@a", {"a": "@b", "b": "@a"}.get) is None


def test_settings_of_a_curve_are_read_alike():
    step = Step.of(bundles.path("volume_contrast"), ["train"], [])
    assert step.value("inflate_channels", {"inflate_channels": "no"}) is False
    assert step.value("dataset_dir", {"dataset_dir": 2024}) == "2024"
    with pytest.raises(ValueError, match="inflate_channels must be true or false"):
        step.check({"inflate_channels": "flase"})


def test_a_flag_of_a_recipe_is_read_alike():
    assert recipes.digest("cardiac_mr", clip="off") == recipes.digest("cardiac_mr")
    with pytest.raises(ValueError, match="clip must be true or false"):
        recipes.digest("cardiac_mr", clip="flase")


def test_flags_are_read_without_regard_to_case_and_spaces():
    assert read_flag("x", " Yes ") is True


@pytest.fixture
def runnable(tmp_path):
    (tmp_path / "metadata.json").write_text("{}")
    (tmp_path / "run.yaml").write_text(
        "imports: ['$import monai_cl.bundles as bundles', '$import json']\n"
        "resume: true\nfolder: ./data\nclip: 1.0\nfinetune_clip: 1.0\n"
        "opener: {_target_: builtins.dict, echo: true, resume: '@resume', folder: '@folder', clip: '@finetune_clip'}\n"
        "initialize: ['$bundles.check_command_line()', '$print(json.dumps(@opener))']\n"
        "run: ['$print(json.dumps(@opener))']\n"
    )
    return tmp_path


@pytest.mark.parametrize("verb", ["run", pytest.param("run_workflow", marks=pytest.mark.slow)])
def test_a_run_goes_on_with_what_was_read_from_its_first_line(runnable, verb):
    command = ["-m", "monai.bundle", verb, "--config_file", str(runnable / "run.yaml")]
    command += ["--resume", "false", "--folder", "2024", "--opener#echo", "off", "--finetune_clip", "None"]
    code = Fork(command, runnable / "log.txt", runnable, os.environ).wait(SECONDS)
    said = (runnable / "log.txt").read_text()
    assert code == 0, said
    printed = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert printed == [{"echo": False, "resume": False, "folder": "2024", "clip": None}] * 2
