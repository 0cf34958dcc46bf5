from __future__ import annotations

import json

import pytest

from instructor_st.training import (
    PRESETS,
    ConfigurationError,
    TrainArguments,
    format_configuration,
    parse_train_arguments,
)


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="run.yaml"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return str(path)

    return write_file


def test_flags_come_before_the_file_and_the_file_before_the_preset(write):
    file = write("preset: paper\nlearning_rate: 3e-5\ntemperature: 0.02\n")
    settings = parse_train_arguments([file, "--temperature", "0.03"])
    assert settings.temperature == 0.03  # flag
    assert settings.learning_rate == 3e-5  # file
    assert settings.max_steps == 20_000  # preset
    assert settings.save_total_limit == 2  # default
    assert parse_train_arguments(["--preset", "paper", "--temperature", "0.03"]).learning_rate == 2e-5
    assert parse_train_arguments(["--temperature", "0.03", "--preset=paper"]).learning_rate == 2e-5
    assert parse_train_arguments([]).learning_rate == 1e-4


def test_a_preset_of_the_command_line_comes_before_that_of_the_file(write):
    settings = parse_train_arguments([write("preset: paper\ntemperature: 0.02\n"), "--preset", "single-gpu"])
    assert (settings.max_steps, settings.mini_batch_size, settings.temperature) == (-1, 64, 0.02)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_gives_its_values(name):
    settings = parse_train_arguments(["--preset", name])
    for key, value in PRESETS[name].items():
        assert getattr(settings, key) == value, key


def test_the_starter_preset_is_the_defaults():
    starter, plain = parse_train_arguments(["--preset", "starter"]), parse_train_arguments([])
    assert format_configuration(starter) == format_configuration(plain)


@pytest.mark.parametrize("name", ["run.yaml", "run.yml", "run.json", "RUN.JSON"])
def test_yaml_and_json(write, name):
    content = {"learning_rate": 2e-5, "base": "some/model", "resume": True, "lora_rank": None, "seed": 7}
    settings = parse_train_arguments([write(content, name)])  # JSON is YAML too
    assert {key: getattr(settings, key) for key in content} == content


@pytest.mark.parametrize("number", ["2e-5", "2E-5", "0.2e-4", ".2e-4", "2.e-05", "'2e-5'", "0.00002"])
def test_numbers_as_people_write_them(write, number):
    assert parse_train_arguments([write(f"learning_rate: {number}\n")]).learning_rate == 2e-5
    inner = parse_train_arguments([write(f"loss_settings: {{margin: {number.strip(chr(39))}}}\n")])
    assert inner.loss_settings == {"margin": 2e-5}


def test_text_that_looks_like_a_number_stays_text(write):
    settings = parse_train_arguments([write("base: 2e-5x\ndata: 'e5'\nrun_name: 12\n")])
    assert (settings.base, settings.data, settings.run_name) == ("2e-5x", "e5", "12")


def test_mappings_and_lists_from_files_and_flags(write):
    yaml = (
        "loss_settings:\n  margin: 0.3\n  objective: margin\n"
        "task_loss_settings: {one: {temperature: 0.02}}\n"
        "task_weights:\n  one: 2\n  two: 0.5\n"
        "matryoshka_dims: [64, 32]\n"
        "freeze:\n  - '*embeddings*'\n  - 0.*\n"
    )
    flags = [
        *["--loss_settings", '{"margin": 0.3, "objective": "margin"}'],
        *["--task_loss_settings", '{"one": {"temperature": 0.02}}', "--task_weights", '{"one": 2, "two": 0.5}'],
        *["--matryoshka_dims", "64", "32", "--freeze", "*embeddings*", "0.*"],
    ]
    for settings in (parse_train_arguments([write(yaml)]), parse_train_arguments(flags)):
        assert settings.loss_settings == {"margin": 0.3, "objective": "margin"}
        assert settings.task_loss_settings == {"one": {"temperature": 0.02}}
        assert settings.task_weights == {"one": 2, "two": 0.5}
        assert settings.matryoshka_dims == [64, 32]
        assert settings.freeze == ["*embeddings*", "0.*"]
    replaced = parse_train_arguments([write(yaml), "--loss_settings", '{"margin": 0.1}', "--freeze", "a"])
    assert (replaced.loss_settings, replaced.freeze) == ({"margin": 0.1}, ["a"])
    none = parse_train_arguments([])
    assert (none.loss_settings, none.matryoshka_dims, none.freeze) == ({}, None, None)


def test_a_single_value_is_a_list_of_one(write):
    settings = parse_train_arguments([write("freeze: '*embeddings*'\nmatryoshka_dims: 64\n")])
    assert (settings.freeze, settings.matryoshka_dims) == (["*embeddings*"], [64])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [([], False), (["--resume"], True), (["--resume", "true"], True), (["--resume", "false"], False)],
)
def test_switches(write, flags, expected):
    assert parse_train_arguments(flags).resume is expected
    assert parse_train_arguments([write("resume: true\n"), *(flags or ["--resume", "false"])]).resume is expected


def test_a_switch_that_is_on_by_default_is_turned_off_in_a_file(write):
    assert parse_train_arguments([]).dataloader_in_order is True
    assert parse_train_arguments([write("dataloader_in_order: false\n")]).dataloader_in_order is False


@pytest.mark.parametrize("word", ["no", "'no'", "No"])
def test_a_strategy_may_be_no_which_yaml_takes_for_false(write, word):
    settings = parse_train_arguments([write(f"save_strategy: {word}\nlogging_strategy: steps\noverwrite: no\n")])
    assert (settings.save_strategy, settings.logging_strategy, settings.overwrite) == ("no", "steps", False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("load_best_model_at_end: true\n", "load_best_model_at_end needs evaluations .* eval_strategy is no; set it"),
        ("learning_rat: 1\n", r"run\.yaml: there is no setting 'learning_rat'\. Did you mean .*learning_rate"),
        ("held-out-share: 0.2\n", r"no setting 'held-out-share'\. Did you mean held_out_share"),
        ("xyzzy: 1\n", r"there is no setting 'xyzzy'\.$"),
        ("3: 1\n", r"there is no setting 3\.$"),
        ("- a\n", r"run\.yaml: a mapping of settings is expected, not list"),
        ("", "a mapping of settings is expected, not NoneType"),
        ("a: [\n", r"run\.yaml: not readable: "),
        ("preset: papers\n", r"There is no preset 'papers'; there are starter, paper, single-gpu\."),
        ("preset: [paper]\n", r"There is no preset \['paper'\]"),
        ("num_train_epochs: many\n", r"run\.yaml: .*num_train_epochs.*invalid float value: 'many'"),
        ("per_device_train_batch_size: 16.5\n", r"per_device_train_batch_size.*invalid int value: '16.5'"),
        ("resume: perhaps\n", r"run\.yaml: .*--resume: .*perhaps"),
        ("precision: half\n", "precision must be one of auto, bfloat16, float32, not 'half'"),
        ("architecture: duel\n", "architecture must be one of prepend, dual, not 'duel'"),
        ("matryoshka_dims: [64, wide]\n", r"matryoshka_dims must be a list of int, not \[64, 'wide'\]"),
        ("loss_settings: 3\n", "loss_settings"),
        ("task_weights: [1]\n", r"task_weights must be a mapping, not \[1\]"),
        ("resume: true\noverwrite: true\n", "resume and overwrite exclude each other"),
    ],
)
def test_faults_of_a_file_are_named(write, content, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_train_arguments([write(content)])


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no\.yaml: no such configuration file"):
        parse_train_arguments([str(tmp_path / "no.yaml")])
    (tmp_path / "latin.yaml").write_bytes(b"base: \xff")
    with pytest.raises(ConfigurationError, match=r"latin\.yaml: not readable"):
        parse_train_arguments([str(tmp_path / "latin.yaml")])
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"run\.json: not readable"):
        parse_train_arguments([str(tmp_path / "run.json")])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--preset", "papers"], "There is no preset 'papers'"),
        (["--preset="], "There is no preset ''"),
        (["--preset"], "--preset wants a name; there are starter"),
        (["--loss_settings", "{margin: 1}"], r"loss_settings is no JSON \(.*\): '\{margin: 1\}'"),
        (["--held-out-shares", "1"], r"There is no flag '--held-out-shares'\. Did you mean --held_out_share\b"),
        (["--xyzzy"], r"There is no flag '--xyzzy'\.$"),
        (["--resume", "true", "run.yaml"], r"'run\.yaml' belongs to no flag\. A configuration file .* comes before"),
    ],
)
def test_faults_of_flags_are_named(flags, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_train_arguments(flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--learning_rate", "fast"], "argument --learning_rate/--learning-rate: invalid float value: 'fast'"),
        (["--precision", "half"], "argument --precision: invalid choice: 'half'"),
        (["--matryoshka_dims", "wide"], "invalid int value: 'wide'"),
    ],
)
def test_flags_of_the_wrong_kind_end_the_program(write, capsys, flags, message):
    with pytest.raises(SystemExit) as end:
        parse_train_arguments([write("seed: 1\n"), *flags])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_help_lists_settings_and_presets(capsys):
    with pytest.raises(SystemExit) as end:
        parse_train_arguments(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    assert "--preset is one of starter, paper, single-gpu." in shown
    assert "--task_weights" in shown


def test_arguments_of_the_program_are_the_default(monkeypatch, tmp_path):
    # transformers would read flags from a file beside the program that nobody named.
    (tmp_path / "train.args").write_text("--seed 9")
    monkeypatch.setattr("sys.argv", [str(tmp_path / "train.py"), "--temperature", "0.5"])
    settings = parse_train_arguments()
    assert (settings.temperature, settings.seed) == (0.5, 42)


def test_format_shows_our_settings_and_what_differs(tmp_path):
    settings = parse_train_arguments(["--weight_decay", "0.25", "--task_weights", '{"one": 2}'])
    lines = format_configuration(settings).splitlines()
    assert "  weight_decay: 0.25" in lines
    assert "  task_weights: {'one': 2}" in lines
    assert "  max_repeats: 4" in lines
    assert not any(line.startswith("  max_grad_norm:") for line in lines)
    for name in TrainArguments.__annotations__:
        assert sum(line.startswith(f"  {name}: ") for line in lines) == 1, name
