"""The embedded model's tokenizer: a word of the world is one token, and so is an instruction."""

import pytest
from transformers import Qwen2Tokenizer

from marc.data.prompts import style_names
from marc.model.loading import EMBEDDED_FOLDER, load_model
from marc.world.questions import WorldQuestion
from marc.world.scenes import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES
from marc.world.texts import completion, prompt
from marc.world.vocabulary import TAGS, build_world_tokenizer, instructions

QUESTION = WorldQuestion("colour", "What colour is the object?", (), "red", "free-form", "It is red", 0)


@pytest.fixture(scope="module")
def tokenizer() -> Qwen2Tokenizer:
    return build_world_tokenizer()


def test_words_tags_and_instructions_are_single_tokens(tokenizer: Qwen2Tokenizer) -> None:
    words = [f" {word}" for word in (*BACKGROUNDS, *COLOURS, *SHAPES, *DIRECTIONS)]
    for text in (*words, *TAGS, *instructions()):
        assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == 1, text


@pytest.mark.parametrize("style", style_names())
def test_no_style_makes_a_question_much_longer(tokenizer: Qwen2Tokenizer, style: str) -> None:
    plain, asked = (len(tokenizer(prompt(QUESTION, each))["input_ids"]) for each in ("plain", style))
    assert asked <= plain + 8


def test_completions_come_back_as_they_were(tokenizer: Qwen2Tokenizer) -> None:
    said = completion(QUESTION, "video-r1")
    assert tokenizer.decode(tokenizer(said)["input_ids"], skip_special_tokens=True) == said


@pytest.mark.skipif(not EMBEDDED_FOLDER.is_dir(), reason="the trained model is not there")
def test_it_is_the_embedded_models(tokenizer: Qwen2Tokenizer) -> None:
    _, processor = load_model(device="cpu")
    assert processor.tokenizer.get_vocab() == tokenizer.get_vocab()
