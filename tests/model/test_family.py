"""Families: found by their folders, known by their checkpoints, and named nowhere else."""

import ast
import json
import re
from pathlib import Path
from unittest import mock

import pytest
from transformers import AutoConfig, modeling_utils

from marc.model.family import families, family_of, find_family, vision_token_ids
from marc.model.loading import EMBEDDED_FOLDER
from marc.model.tiny import build_tiny

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=families(), ids=lambda family: family.name)
def family(request):
    return request.param


def test_a_folder_is_a_family():
    folders = [file.parent.name for file in (ROOT / "marc" / "model").glob("*/__init__.py")]
    assert [family.name for family in families()] == sorted(folders)


def test_model_types_belong_to_one_family():
    types = [kind for family in families() for kind in (family.model_type, family.stock_model_type)]
    assert len(types) == len(set(types))


def test_the_names_in_a_record_are_classes_that_fit_each_other(family):
    ours, stock = family.ours, family.stock
    assert ours.load("config").model_type == family.model_type
    assert stock.load("config").model_type == family.stock_model_type
    for role in ("config", "model", "generator", "processor"):
        assert issubclass(ours.load(role), stock.load(role))
    for role in ("model", "generator"):
        assert ours.load(role).config_class is ours.load("config")
        assert stock.load(role).config_class is stock.load("config")


def test_transformers_has_nothing_to_warn_of(family):
    with mock.patch.object(modeling_utils.logger, "warning") as warning:
        build_tiny(family=family.name)
        assert family.ours.load("generator").can_generate()
        assert not family.ours.load("model").can_generate()
    warning.assert_not_called()


def test_models_configurations_and_processors_know_their_family(family):
    model, processor = build_tiny(family=family.name)
    assert family_of(model) is family_of(model.model) is family_of(model.config) is family_of(processor) is family
    assert model.family is processor.family is family
    assert family_of(family.stock.load("config")()) is family
    with pytest.raises(ValueError, match="belongs to no model family"):
        family_of(ROOT)


def test_a_records_facts_are_those_of_its_classes(family):
    model, processor = build_tiny(family=family.name)
    assert model.config.vision_config.temporal_patch_size == processor.video_processor.temporal_patch_size
    assert model.config.vision_config.temporal_patch_size == family.frames_per_grid
    never = vision_token_ids(processor.tokenizer)
    assert {model.config.video_token_id, model.config.image_token_id} <= set(never)
    linears = {name for name, module in model.named_modules() if re.fullmatch(family.language_linears, name)}
    assert linears and all("language_model" in name for name in linears)
    assert isinstance(model.model.visual, family.stock.load("tower"))


def test_an_unknown_model_type_is_named():
    with pytest.raises(ValueError, match="found 'gpt2'"):
        find_family("gpt2")


def test_another_number_of_frames_a_grid_is_refused(tmp_path):
    from marc import load_model

    config = AutoConfig.from_pretrained(EMBEDDED_FOLDER).to_dict()
    config["vision_config"]["temporal_patch_size"] = 4
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="4 frames are one temporal grid; videos are read 2 each"):
        load_model(tmp_path, device="cpu")


def names_in(path: Path):
    """Every name that a file's code uses, without texts and comments."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("folder", ["marc", "benchmarks", "experiments"])
def test_only_a_familys_folder_names_its_classes_in_transformers(folder):
    stock = {name for family in families() for name in family.stock.names.values()}
    inside = {ROOT / "marc" / "model" / family.name for family in families()}
    engines = {ROOT / "marc" / "serving" / "vllm" / f"{family.name}.py" for family in families()}
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / folder).rglob("*.py")
        if not inside & set(path.parents) and path not in engines and "tests" not in path.relative_to(ROOT).parts
        for name in names_in(path)
        if name in stock or "Qwen" in name or name.startswith("transformers.models.qwen")
    ]
    assert not found, found
