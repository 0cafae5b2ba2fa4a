"""A handful of pictures must be learnt by heart, the first image token included."""

from __future__ import annotations

import pytest
import torch

from dalle.config import SamplingConfig
from dalle.model_config import SequenceConfig, TransformerConfig
from dalle.sampling import sample_tokens
from dalle.sequence import joint_loss, pad_caption
from dalle.transformer import JointTransformer

SEQUENCE = SequenceConfig(text_len=6, text_vocab=20, grid_h=3, grid_w=3, image_vocab=16)


@pytest.mark.parametrize("attention", ["dense", "paper"])
def test_a_tiny_set_is_reproduced_exactly(attention: str) -> None:
    """Users of earlier systems could not get back even the pictures they had trained on.

    Twelve captions of zero to six tokens, each with a random grid. Off-by-one faults between the
    halves show here: the first image token hangs on the last caption element alone.
    """
    source = torch.Generator().manual_seed(0)
    text_ids = torch.stack(
        [
            pad_caption(torch.randint(20, (index % 7,), generator=source).tolist(), SEQUENCE)
            for index in range(1, 13)
        ]
    )
    assert len({tuple(caption) for caption in text_ids.tolist()}) == 12
    image_tokens = torch.randint(16, (12, 9), generator=source)
    assert len(set(image_tokens[:, 0].tolist())) > 6, (
        "first tokens differ, so they must be predicted"
    )

    torch.manual_seed(0)
    config = TransformerConfig(
        width=64,
        heads=4,
        layers=3,
        attention=attention,  # type: ignore[arg-type]
        conv_kernel=3,
    )
    transformer = JointTransformer(SEQUENCE, config)
    optimizer = torch.optim.AdamW(transformer.parameters(), lr=3e-3)
    for _ in range(150):
        logits = transformer(text_ids, image_tokens)
        losses = joint_loss(
            logits.text,
            logits.image,
            text_ids=text_ids,
            image_tokens=image_tokens,
            text_weight=0.125,
            scored_text=torch.ones(12, dtype=torch.bool),
        )
        optimizer.zero_grad()
        torch.autograd.backward(losses.loss)
        optimizer.step()

    *_, drawn = sample_tokens(
        transformer,
        text_ids,
        candidates=[0],
        seed=0,
        sampling=SamplingConfig(temperature=0),
    )
    assert torch.equal(drawn.tokens[:, 0], image_tokens)
    assert drawn.log_probability.exp().min() > 0.9, "learnt, not guessed"
