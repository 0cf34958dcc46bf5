from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Normalize

from instructor_st import INSTRUCTOR
from instructor_st.modules import DenseDelta
from instructor_st.reinstruct import encode_text, reinstruct
from instructor_st.training import FinetuneSettings
from instructor_st.training.tuners import DualTuner, PrependTuner, Tuner, make_tuner
from instructor_st.tuned_models import add_tuned_task, get_tuned_tasks
from tests.conftest import MINILM
from tests.training.toy_tasks import INSTRUCTION, TEXTS

FEW = TEXTS[:6]
PLACES = torch.arange(len(FEW))
DOCUMENTS = "Represent the answer: "


@pytest.fixture
def dual(dual_model) -> INSTRUCTOR:
    return copy.deepcopy(dual_model)


@pytest.fixture
def prepend(prepend_model) -> INSTRUCTOR:
    return copy.deepcopy(prepend_model)


def make(model: SentenceTransformer, *instructions: str, **settings) -> Tuner:
    """A tuner of a frozen model, as finetuning makes it."""
    model.eval().requires_grad_(False)
    is_dual = hasattr(model[0], "text_encoder")
    return make_tuner(
        model,
        FEW,
        text_vectors=torch.as_tensor(encode_text(model, FEW)) if is_dual else None,
        instructions=instructions or [INSTRUCTION],
        settings=FinetuneSettings(**settings),
    )


def train(tuner: Tuner, *, steps: int = 3, rate: float = 1e-2) -> None:
    """Draw the texts at even places apart from those at odd ones."""
    optimizer = torch.optim.SGD(tuner.parameters(), lr=rate)
    tuner.train()
    for _ in range(steps):
        queries, documents = tuner.embed(PLACES[::2], 0), tuner.embed(PLACES[1::2], 1)
        optimizer.zero_grad()
        (queries * documents).sum().backward()
        optimizer.step()


def encode(model: SentenceTransformer, instruction: str) -> np.ndarray:
    return model.encode([[instruction, text] for text in FEW])


@pytest.mark.parametrize("instruction", [INSTRUCTION, "", "Find the weather of: "])
@pytest.mark.parametrize("architecture", ["dual", "prepend"])
def test_an_untrained_tuner_embeds_as_the_model_does(architecture, instruction, request):
    model = request.getfixturevalue(architecture)
    tuner = make(model, instruction)
    assert isinstance(tuner, DualTuner if architecture == "dual" else PrependTuner)
    if instruction or architecture == "dual":  # an empty soft prompt has vectors all the same
        np.testing.assert_allclose(tuner.embed_all(PLACES), encode(model, instruction), atol=1e-5)
    tuner.train()
    tuner.embed_all(PLACES)
    assert tuner.training
    tuner.eval()
    tuner.embed_all(PLACES)
    assert not tuner.training
    assert not tuner.embed_all(PLACES).requires_grad


@pytest.mark.parametrize("part", ["vector", "lora", "encoder"])
@pytest.mark.parametrize("dense_rank", [None, 2])
def test_a_trained_dual_task_is_the_tuner(dual, part, dense_rank, tmp_path):
    weights = {name: tensor.clone() for name, tensor in dual.state_dict().items()}
    tuner = make(dual, INSTRUCTION, DOCUMENTS, part=part, dense_rank=dense_rank)
    before = [tuner.embed_all(PLACES, side) for side in (0, 1)]
    train(tuner, rate=0.1)
    tasks = tuner.make_tasks(["query", "document"], [INSTRUCTION, DOCUMENTS])
    written = [dual[0].embed_instruction(each) for each in (INSTRUCTION, DOCUMENTS)]
    for side, task in enumerate(tasks):
        assert (task.architecture, task.instruction) == ("dual", (INSTRUCTION, DOCUMENTS)[side])
        assert task.vectors.shape == (1, 384)
        assert (task.vectors - written[side]).abs().max() > 1e-4
        add_tuned_task(dual, task)
    assert not torch.equal(tasks[0].vectors, tasks[1].vectors)
    assert all(torch.equal(dual.state_dict()[name], tensor) for name, tensor in weights.items())
    dual.save_pretrained(str(tmp_path))
    loaded = INSTRUCTOR(str(tmp_path), device="cpu")
    for side, name in enumerate(["query", "document"]):
        found = tuner.embed_all(PLACES, side).numpy()
        assert np.abs(found - before[side].numpy()).max() > 1e-3
        np.testing.assert_allclose(encode(dual, name), found, atol=1e-5)
        np.testing.assert_allclose(encode(loaded, name), found, atol=1e-5)
        np.testing.assert_allclose(reinstruct(dual, encode_text(dual, FEW), name), found, atol=1e-5)


def test_the_change_of_the_dense_is_compressed_in_evaluation_only(dual):
    tuner = make(dual, dense_rank=1, dropout=0.0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in tuner.delta.values():
            tensor.copy_(0.05 * torch.randn(tensor.shape, generator=generator))
    whole = DenseDelta({name: tensor.detach() for name, tensor in tuner.delta.items()})
    halves = [dual[0].embed_instruction(INSTRUCTION).expand(len(FEW), -1), torch.tensor(encode_text(dual, FEW))]
    inputs = torch.cat(halves, dim=1)
    expected = {
        name: torch.nn.functional.normalize(delta.apply(dual[1], inputs))
        for name, delta in (("whole", whole), ("compressed", whole.compress(1)))
    }
    assert (expected["whole"] - expected["compressed"]).abs().max() > 0.01
    tuner.train()
    torch.testing.assert_close(tuner.embed(PLACES), expected["whole"], atol=1e-5, rtol=0)
    torch.testing.assert_close(tuner.embed_all(PLACES), expected["compressed"], atol=1e-5, rtol=0)
    (task,) = tuner.make_tasks(["form"], [INSTRUCTION])
    shapes = {name: tuple(tensor.shape) for name, tensor in task.dense_delta.tensors.items()}
    assert shapes == {
        "bias": (384,),
        "linear_out": (384, 1),
        "linear_in": (1, 768),
        "residual_out": (384, 1),
        "residual_in": (1, 768),
    }


def test_dropout_falls_on_the_text_vectors_in_training_only(dual):
    tuner = make(dual, dropout=0.5)
    tuner.train()
    torch.manual_seed(0)
    first, second = tuner.embed(PLACES), tuner.embed(PLACES)
    assert (first - second).abs().max() > 0.01
    assert torch.equal(tuner.embed_all(PLACES), tuner.embed_all(PLACES))


def test_what_decays_and_how_much_is_trained(dual, prepend):
    settings = FinetuneSettings(weight_decay=0.5)
    decayed, kept = make(dual).group_parameters(settings)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.5, 0.0)
    assert sorted(tuple(each.shape) for each in decayed["params"]) == [(384,), (384, 768), (384, 768)]
    assert [tuple(each.shape) for each in kept["params"]] == [(1, 384)]
    (only,) = make(dual, tune_dense=False).group_parameters(settings)
    assert (only["weight_decay"], len(only["params"])) == (0.0, 1)
    (prompts,) = make(prepend, INSTRUCTION, DOCUMENTS).group_parameters(settings)
    assert (prompts["weight_decay"], len(prompts["params"])) == (0.0, 2)
    encoder = make(dual, part="encoder", tune_dense=False)
    whole = sum(each.numel() for each in dual[0].instruction_encoder.parameters())
    assert sum(each.numel() for each in encoder.parameters() if each.requires_grad) == whole
    lora = make(dual, part="lora", tune_dense=False)
    trained = {name for name, each in lora.named_parameters() if each.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)


def test_one_instruction_serves_both_sides(dual, prepend):
    for model in (dual, prepend):
        tuner = make(model)
        assert torch.equal(tuner.embed_all(PLACES, 1), tuner.embed_all(PLACES, 0))
        tuner = make(model, INSTRUCTION, DOCUMENTS)
        np.testing.assert_allclose(tuner.embed_all(PLACES, 1), encode(model, DOCUMENTS), atol=1e-5)
    lora = make(dual, part="lora")
    assert torch.equal(lora.embed_all(PLACES, 1), lora.embed_all(PLACES, 0))


def test_an_instruction_that_cannot_act_is_refused():
    fresh = INSTRUCTOR.from_encoder(MINILM, "dual", device="cpu")
    with pytest.raises(ValueError, match=r"takes no notice of the instruction .* say tune_dense=True"):
        make(fresh, tune_dense=False)
    assert make(fresh).delta
    # In either of the two layers the instruction may act.
    fresh[1].residual.weight.data[5, 7] = 0.1
    assert not make(fresh, tune_dense=False).delta


@pytest.mark.parametrize("rest", [[], [Normalize()]])
def test_a_model_without_a_dense(dual, rest):
    bare = SentenceTransformer(modules=[dual[0], *rest], device="cpu")
    with pytest.raises(ValueError, match="no Dense behind the concatenation; say tune_dense=False"):
        make(bare)
    tuner = make(bare, tune_dense=False)
    train(tuner, rate=1.0)
    (task,) = tuner.make_tasks(["form"], [INSTRUCTION])
    assert task.dense_delta is None
    before = encode(bare, INSTRUCTION)
    add_tuned_task(bare, task)
    assert np.abs(encode(bare, "form") - before).max() > 1e-3
    np.testing.assert_allclose(encode(bare, "form"), tuner.embed_all(PLACES), atol=1e-5)


def test_without_a_change_of_the_dense_only_the_vector_is_kept(dual):
    tuner = make(dual, tune_dense=False)
    before = encode(dual, INSTRUCTION)
    train(tuner, rate=1.0)
    (task,) = tuner.make_tasks(["form"], [INSTRUCTION])
    assert task.dense_delta is None
    add_tuned_task(dual, task)
    assert type(dual[1]) is Dense
    assert np.abs(encode(dual, "form") - before).max() > 1e-3
    np.testing.assert_allclose(encode(dual, "form"), tuner.embed_all(PLACES), atol=1e-5)


def test_models_that_cannot_be_tuned(prepend):
    for part in ("lora", "encoder"):
        with pytest.raises(ValueError, match=f"part='{part}': a prepend model has one encoder; its soft prompt"):
            make(prepend, part=part)
    with pytest.raises(ValueError, match="begins with Transformer takes no instructions; there is nothing to tune"):
        make(SentenceTransformer(MINILM, device="cpu"))


@pytest.mark.parametrize(("length", "expected"), [(None, 4), (2, 2), (7, 7)])
def test_a_soft_prompt_begins_with_the_instructions_tokens(prepend, length, expected):
    tuner = make(prepend, INSTRUCTION, prompt_length=length)
    words = ["represent", "the", "sentence", ":"]
    assert prepend.tokenizer.tokenize(INSTRUCTION) == words
    ids = prepend.tokenizer.convert_tokens_to_ids([words[place % 4] for place in range(expected)])
    (prompt,) = tuner.prompts
    assert torch.equal(prompt, prepend[0].model.get_input_embeddings().weight[ids])
    assert prompt.requires_grad
    with torch.no_grad():
        prompt.add_(1.0)  # a copy: the model's embeddings stay
    assert not torch.equal(prompt, prepend[0].model.get_input_embeddings().weight[ids])


@pytest.mark.parametrize(("length", "expected"), [(None, 8), (3, 3)])
def test_an_empty_prompt_begins_with_tokens_drawn_by_the_seed(prepend, length, expected):
    prompts = [make(prepend, " ", prompt_length=length, seed=seed).prompts[0] for seed in (0, 0, 1)]
    table = prepend[0].model.get_input_embeddings().weight
    assert prompts[0].shape == (expected, 384)
    assert all((table == row).all(dim=1).any() for row in prompts[0])
    assert len({tuple(row.tolist()) for row in prompts[0]}) == expected
    assert torch.equal(prompts[0], prompts[1])
    assert not torch.equal(prompts[0], prompts[2])


@pytest.mark.parametrize("instruction", [INSTRUCTION, ""])
def test_a_trained_soft_prompt_is_the_tuner(prepend, instruction, tmp_path):
    weights = {name: tensor.clone() for name, tensor in prepend.state_dict().items()}
    tuner = make(prepend, instruction, DOCUMENTS, prompt_length=3)
    begun = [prompt.detach().clone() for prompt in tuner.prompts]
    before = [tuner.embed_all(PLACES, side).numpy() for side in (0, 1)]
    train(tuner)
    assert not get_tuned_tasks(prepend)
    tasks = tuner.make_tasks(["query", "document"], [instruction, DOCUMENTS])
    for task, old in zip(tasks, begun, strict=True):
        assert task.vectors.shape == (3, 384)
        assert ((task.vectors - old).abs().max(dim=1).values > 1e-4).all()
        add_tuned_task(prepend, task)
    prepend.save_pretrained(str(tmp_path))
    loaded = INSTRUCTOR(str(tmp_path), device="cpu")
    for side, name in enumerate(["query", "document"]):
        found = tuner.embed_all(PLACES, side).numpy()
        assert np.abs(found - before[side]).max() > 1e-3
        np.testing.assert_allclose(encode(prepend, name), found, atol=1e-5)
        np.testing.assert_allclose(encode(loaded, name), found, atol=1e-5)
    assert all(torch.equal(prepend.state_dict()[name], tensor) for name, tensor in weights.items())


def test_tasks_do_not_change_with_the_tuner(dual, prepend):
    for model in (dual, prepend):
        tuner = make(model)
        (task,) = tuner.make_tasks(["form"], [INSTRUCTION])
        kept = task.vectors.clone()
        with torch.no_grad():
            for parameter in tuner.parameters():
                parameter.add_(1.0)
        assert torch.equal(task.vectors, kept)
        assert task.dense_delta is None or not task.dense_delta.tensors["linear"].any()


def test_making_a_tuner_draws_nothing_from_the_global_generator(dual, prepend):
    state = torch.get_rng_state()
    for model, settings in ((dual, {"part": "lora"}), (dual, {}), (prepend, {})):
        make(model, "", **settings)
    assert torch.equal(torch.get_rng_state(), state)
    adapters = []
    for seed in (0, 0, 1):
        torch.rand(seed + 3)
        parameters = make(dual, part="lora", seed=seed).named_parameters()
        adapters.append(torch.cat([each.flatten() for name, each in parameters if "lora_A" in name]))
    assert torch.equal(adapters[0], adapters[1])
    assert not torch.equal(adapters[0], adapters[2])
