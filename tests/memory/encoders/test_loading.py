"""What a name or a folder is taken for, what is refused, and that vectors of different models stay apart."""

import json
import shutil

import numpy as np
import pytest
import torch
from mutants import break_one, seeds, withstands
from safetensors.torch import load_file, save_file

from marc.memory import EventEmbedder, MemoryLibrary, MemoryOptions, remember
from marc.memory.encoders.dual_encoder import DualEncoder
from marc.memory.encoders.loading import check_listed, load_encoder
from marc.memory.encoders.qwen3_vl import Qwen3VLEmbedding
from marc.memory.encoders.siglip import Siglip
from marc.memory.encoders.videoprism import VideoPrism

KINDS = {
    "dual_encoder_folder": DualEncoder,
    "siglip_folder": Siglip,
    "naflex_folder": Siglip,
    "videoprism_folder": VideoPrism,
    "qwen3_vl_folder": Qwen3VLEmbedding,
}


@pytest.mark.parametrize("fixture", KINDS)
def test_the_kind_is_known_by_the_files(fixture, request):
    folder = request.getfixturevalue(fixture)
    check_listed(folder)
    assert isinstance(load_encoder(folder), KINDS[fixture])


def test_all_fingerprints_differ(request, load):
    assert len({load(request.getfixturevalue(fixture)).fingerprint for fixture in KINDS}) == len(KINDS)


@pytest.mark.parametrize("fixture", ["siglip_folder", "videoprism_folder", "qwen3_vl_folder"])
def test_a_copy_has_the_fingerprint_and_other_weights_or_settings_have_not(fixture, request, tmp_path, load):
    folder = request.getfixturevalue(fixture)
    original = load(folder).fingerprint
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    retold(copy / "config.json", transformers_version="4.0")
    assert load(copy).fingerprint == original
    retold(copy / "config.json", architectures=["Another"])
    assert load(copy).fingerprint != original
    shutil.copy(folder / "config.json", copy)
    weights = load_file(copy / "model.safetensors")
    save_file({name: tensor * 1.001 for name, tensor in weights.items()}, copy / "model.safetensors", {"format": "pt"})
    assert load(copy).fingerprint != original


@pytest.mark.parametrize("fixture", KINDS)
def test_in_bf16_events_and_questions_stay_near_float32(fixture, request, load):
    half, whole = (load(request.getfixturevalue(fixture), precision=precision) for precision in ("bf16", "fp32"))
    clips = [np.random.default_rng(0).integers(0, 256, (5, 40, 56, 3), dtype=np.uint8)]
    assert (half.embed_events(clips) * whole.embed_events(clips)).sum() > 0.999
    assert half.embed_question("a red cat").vector @ whole.embed_question("a red cat").vector > 0.999
    assert half.identity == {"fingerprint": whole.fingerprint, "precision": "bf16"}


def test_what_is_read_otherwise_has_another_fingerprint(siglip_folder, load, monkeypatch):
    original = load(siglip_folder).fingerprint
    monkeypatch.setattr(Siglip, "reads", {"text": "as it is"})
    assert load(siglip_folder).fingerprint != original


def retold(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"model_type": "pe_video"}, "config.json is of the type 'pe_video'; embedders are open_clip's"),
        ({"model_type": "siglip_vision_model"}, "SigLIP and SigLIP 2, Qwen3-VL-Embedding, VideoPrism"),
        ({}, "config.json is of no type"),
    ],
)
def test_a_format_that_cannot_embed_is_refused_with_what_can(tmp_path, said, message):
    (tmp_path / "config.json").write_text(json.dumps(said))
    for read in (check_listed, EventEmbedder.from_pretrained):
        with pytest.raises(ValueError, match=message) as error:
            read(tmp_path)
        assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_an_empty_folder_is_refused_with_what_can_be_loaded(tmp_path):
    with pytest.raises(ValueError, match=r"neither open_clip_config.json nor config.json.*VideoPrism"):
        EventEmbedder.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 99), "model.safetensors"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "siglip"'), "not valid JSON"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "checkpoint"),
        (
            lambda folder: retold(folder / "config.json", text_config={"hidden_size": 24, "vocab_size": 10**9}),
            "vocab_size is 1000000000",
        ),
        (lambda folder: lose(folder, "text_model.head.weight"), "missing: text_model.head.weight"),
        (lambda folder: spoil(folder, "text_model.head.weight"), "no finite numbers"),
    ],
)
def test_what_is_damaged_is_named_in_a_line(siglip_folder, tmp_path, load, change, message):
    folder = tmp_path / "model"
    shutil.copytree(siglip_folder, folder)
    change(folder)
    with pytest.raises(ValueError, match=message) as error:
        load(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def lose(folder, name):
    weights = load_file(folder / "model.safetensors")
    save_file(
        {key: each for key, each in weights.items() if key != name}, folder / "model.safetensors", {"format": "pt"}
    )


def spoil(folder, name):
    weights = load_file(folder / "model.safetensors")
    weights[name] = torch.full_like(weights[name], torch.nan)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("fixture", ["siglip_folder", "naflex_folder", "videoprism_folder", "qwen3_vl_folder"])
def test_whatever_is_in_the_files_the_error_names_the_folder(fixture, request, tmp_path, load):
    def use():
        embedder = load(folder)
        vectors = (
            embedder.embed_question("What?").vector,
            embedder.embed_events([np.zeros((2, 32, 32, 3), np.uint8)])[0],
        )
        assert all(vector.shape == (embedder.dimension,) and np.isfinite(vector).all() for vector in vectors)

    for number, chance in enumerate(seeds(8)):
        folder = tmp_path / str(number)
        shutil.copytree(request.getfixturevalue(fixture), folder)
        name = break_one(folder, chance)
        withstands(use, ValueError, f"{name}, mutant {number}")


def test_a_repository_of_the_hub_is_read_as_its_files_are(siglip_folder, monkeypatch, load):
    asked = []
    monkeypatch.setattr("marc.memory.encoders.loading.check_reachable", lambda name: None)
    monkeypatch.setattr(
        "marc.memory.encoders.loading.hub_folder", lambda name, *files: asked.append(name) or siglip_folder
    )
    embedder = load("google/siglip2-base-patch16-224")
    assert set(asked) == {"google/siglip2-base-patch16-224"}
    assert embedder.name == "google/siglip2-base-patch16-224"
    assert embedder.fingerprint == load(siglip_folder).fingerprint


def test_a_repository_of_open_clip_is_left_to_open_clip(dual_encoder_folder, monkeypatch):
    asked = []
    monkeypatch.setattr("marc.memory.encoders.loading.check_reachable", lambda name: None)
    monkeypatch.setattr("marc.memory.encoders.loading.hub_folder", lambda name, *files: dual_encoder_folder)
    monkeypatch.setattr("marc.memory.encoders.loading.load_dual_encoder", asked.append)
    load_encoder("timm/PE-Core-T-16-384")
    assert asked == ["hf-hub:timm/PE-Core-T-16-384"]


def test_without_network_the_way_out_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("marc.memory.encoders.checkpoint.hub_answers", lambda: False)
    for read in (check_listed, EventEmbedder.from_pretrained):
        with pytest.raises(ValueError, match=r"Qwen/Qwen3-VL-Embedding-2B: .*cannot be reached.*pass its folder"):
            read("Qwen/Qwen3-VL-Embedding-2B")


def test_what_the_hub_says_is_handed_on(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise OSError("Repository not found\nand much more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("marc.memory.encoders.checkpoint.hub_answers", lambda: True)
    with pytest.raises(ValueError, match=r"nobody/nothing: cannot get its files .*: Repository not found\. Run"):
        EventEmbedder.from_pretrained("nobody/nothing")


def test_an_event_of_a_model_of_pictures_is_still_a_mean(siglip_folder, load):
    embedder = load(siglip_folder)
    frames = np.random.default_rng(2).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)
    mean = embedder.embed_frames(frames).astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(embedder.embed_events([frames])[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_one_video_under_two_models_is_remembered_and_found_by_each_alone(
    siglip_folder, videoprism_folder, load, three_shots, tmp_path
):
    library = MemoryLibrary(tmp_path / "library")
    options = MemoryOptions(segmenter="uniform", min_event_seconds=1.0, max_event_seconds=2.0)
    embedders = [load(siglip_folder), load(videoprism_folder)]
    memories = [remember(three_shots, each, options, folder=tmp_path / "memories") for each in embedders]
    library.add(memories)
    assert len(list((tmp_path / "memories").glob("*.marc"))) == 2
    for embedder, memory in zip(embedders, memories, strict=True):
        found = library.recall(embedder, "a red cat", k=50)
        query = embedder.embed_question("a red cat").vector
        assert [one.position for one in found] == np.argsort(-memory.embeddings @ query).tolist()
        assert remember(three_shots, embedder, options, folder=tmp_path / "memories").key == memory.key
    assert len(memories[0].looks) == len(memories[0].events) and memories[1].looks == ()
