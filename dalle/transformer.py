"""The joint transformer: caption tokens followed by image tokens, predicted one by one.

See `dalle.sequence` for how the two halves are laid out. Axis letters: b batch, t caption
positions, m image positions, d width, k image vocabulary; c captions, g candidates, r image
tokens given as a prompt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from dalle.attention import WRITTEN_OUT_SLOTS, CausalSelfAttention, causal_mask
from dalle.bag_cache import BagCache, sums_rows_fast
from dalle.kv_cache import KeyValues, KVCache, Memory, Seen
from dalle.model_config import LayerMask, SequenceConfig, TransformerConfig
from dalle.sequence import image_slot
from dalle.sparse_attention import Pieces, pieces_of

_INIT_STD = 0.02


@dataclass(frozen=True, kw_only=True)
class JointLogits:
    """What the model says about each element; float32, except for `raw_logits`.

    The products are of the precision that training runs in: in bf16, where the processor has it,
    a whole training step is a fifth faster for it. Sampling always computes its own in float32.

    Attributes:
        text: Scores for each caption position, shape (b, t, text_vocab + 1); the last class says
            that the caption has ended.
        image: Scores for each image position, shape (b, m, k).
    """

    text: Tensor
    image: Tensor


class Block(nn.Module):
    """Attention and a feed-forward layer, each normalised before and added to its input."""

    def __init__(self, width: int, heads: int, *, mlp_ratio: int, qk_norm: bool) -> None:
        """A block of `width` whose feed-forward layer is `mlp_ratio` times as wide."""
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = CausalSelfAttention(width, heads, qk_norm=qk_norm)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, mlp_ratio * width)
        self.activation: nn.Module = nn.GELU()
        self.mlp_out = nn.Linear(mlp_ratio * width, width)

    def forward(
        self, x: Tensor, mask: Tensor | None, pieces: Pieces | None = None
    ) -> tuple[Tensor, KeyValues]:
        """New states of a whole sequence, shape (b, s, d), and its keys and values."""
        mixed, key_values = self.attention(self.attention_norm(x), mask, pieces)
        return self._feed_forward(x + mixed), key_values

    def decode(self, x: Tensor, memory: Memory[Seen], seen: Seen) -> Tensor:
        """New states of one token per candidate, shape (c, g, d); `memory` gains it."""
        x = x + self.attention.decode(self.attention_norm(x), memory, seen)
        return self._feed_forward(x)

    def _feed_forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.mlp_in(self.mlp_norm(x))
        if x.device.type == "cpu" and torch.is_grad_enabled():
            # The backward pass activates once more what it would else have kept twice: the widest
            # of all states, a twentieth of what training takes.
            added: Tensor = checkpoint(
                self._from_hidden, hidden, use_reentrant=False, preserve_rng_state=False
            )
        else:
            added = self._from_hidden(hidden)
        return x + added

    def _from_hidden(self, hidden: Tensor) -> Tensor:
        return cast(Tensor, self.mlp_out(self.activation(hidden)))


DecodeBlock = Callable[[Block, Tensor, Any, Any], Tensor]
"""`Block.decode`, or a form of it that is compiled for one kind of memory."""


class JointTransformer(nn.Module):
    """A decoder-only transformer over captions and image tokens as one stream.

    Source: Ramesh et al., arXiv:2102.12092, section 2.2 and appendix B.1. The two halves have
    output projections of their own, so no score is computed only to be masked away.

    Attributes:
        recompute: Whether training keeps only the states between blocks for the backward pass, and
            computes anew what lies within. Gradients stay the same to the last bit.
        image_head: What scores the next image token, where that is faster than a product with
            `image_unembedding_weight`; it holds the same weights, laid out for drawing.
        kept_dtype: In which keys and values of float32 are kept while a CPU draws, where a choice
            is left (`BagCache`).
    """

    def __init__(self, sequence: SequenceConfig, config: TransformerConfig) -> None:
        """A model with fresh random weights.

        Args:
            sequence: Lengths and vocabularies of the two halves.
            config: Depth, width and kind of attention.
        """
        super().__init__()
        self.sequence = sequence
        self.config = config
        self.recompute = False
        self.image_head: nn.Module | None = None
        self.kept_dtype = torch.float32
        width = config.width
        self.start = nn.Parameter(torch.empty(width))
        # One row per word piece, then one pad per caption position.
        self.text_embedding = nn.Embedding(sequence.text_vocab + sequence.text_len, width)
        self.text_position = nn.Embedding(sequence.text_len, width)
        self.image_embedding = nn.Embedding(sequence.image_vocab, width)
        self.row_position = nn.Embedding(sequence.grid_h, width)
        self.column_position = nn.Embedding(sequence.grid_w, width)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, mlp_ratio=config.mlp_ratio, qk_norm=config.qk_norm)
            for _ in range(config.layers)
        )
        self.final_norm = nn.LayerNorm(width)
        if not config.tie_embeddings:
            self.text_unembedding = nn.Parameter(torch.empty(sequence.text_vocab + 1, width))
            self.image_unembedding = nn.Parameter(torch.empty(sequence.image_vocab, width))
        self._layer_masks = config.layer_masks()
        self._pieces: dict[LayerMask, Pieces] = {}
        for kind in dict.fromkeys(self._layer_masks):
            if kind != "dense":
                mask = causal_mask(kind, sequence, config.conv_kernel)
                self.register_buffer(f"{kind}_mask", mask, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        """Normal weights of deviation 0.02; smaller where a layer adds to the residual stream."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" not in name:
                nn.init.normal_(parameter, std=_INIT_STD)
        residual_std = _INIT_STD / math.sqrt(2 * self.config.layers)
        for block in self.block_list():
            nn.init.normal_(block.attention.out.weight, std=residual_std)
            nn.init.normal_(block.mlp_out.weight, std=residual_std)

    def forward(self, text_ids: Tensor, image_tokens: Tensor) -> JointLogits:
        """Predictions of every element from the elements before it.

        Args:
            text_ids: Captions with pads (`sequence.pad_caption`), shape (b, t), int64.
            image_tokens: Shape (b, m), int64; the last column is predicted but never read.
        """
        logits = self.raw_logits(text_ids, image_tokens)
        return JointLogits(text=logits.text.float(), image=logits.image.float())

    def raw_logits(self, text_ids: Tensor, image_tokens: Tensor) -> JointLogits:
        """What `forward` says, still in the type of its products, as `joint_loss` takes it.

        Training saves the float32 copies of its largest tensors so, and those of their gradients.
        """
        x = self._run(self.embed(text_ids, image_tokens[:, :-1]))  # b n d
        text_len = self.sequence.text_len
        return JointLogits(
            text=linear(x[:, :text_len], self._text_unembedding()),
            image=linear(x[:, text_len:], self.image_unembedding_weight()),
        )

    def prefill(
        self, text_ids: Tensor, image_prompt: Tensor | None, *, candidates: int
    ) -> tuple[Tensor, KVCache | BagCache]:
        """Read captions and image prompts, and make room for what is drawn after them.

        Args:
            text_ids: Captions with pads, shape (c, t), int64.
            image_prompt: First image tokens, shape (c, r), 0 <= r < m; None is r = 0.
            candidates: Images that will be drawn for each caption (g).

        Returns:
            Scores for image token r, shape (c, k), float32; and a cache with room for the rest.
        """
        logits, prefix = self.read(text_ids, image_prompt)
        keys = prefix[0].keys
        suffix_len = self.sequence.total_len - keys.shape[2]
        in_bags = keys.device.type == "cpu" and keys.dtype == torch.float32 and sums_rows_fast()
        if in_bags and {*self._layer_masks} == {"dense"}:
            return logits, BagCache(
                prefix, candidates=candidates, suffix_len=suffix_len, dtype=self.kept_dtype
            )
        return logits, KVCache(prefix, candidates=candidates, suffix_len=suffix_len)

    def read(
        self, text_ids: Tensor, image_prompt: Tensor | None, *, merge_equal: bool = True
    ) -> tuple[Tensor, list[KeyValues]]:
        """Scores for the first image token, as those of `prefill`, and what they came from.

        Args:
            text_ids: See `prefill`.
            image_prompt: See `prefill`.
            merge_equal: Compute equal ones once.

        Returns:
            Scores, shape (c, k), float32; keys and values per layer, shape (c, a, 1 + t + r, f).
        """
        prompt = text_ids[:, :0] if image_prompt is None else image_prompt
        if merge_equal:
            embedded, row_of = self.embed_distinct(text_ids, prompt)
        else:
            embedded = self.embed(text_ids, prompt)
            row_of = torch.arange(len(text_ids), device=text_ids.device)
        memory: list[KeyValues] = []
        x = self._run(embedded, memory)
        # One row per caption, equal or not, so that rounding does not depend on how many are equal.
        logits = self._next_logits(x[row_of, -1])
        return logits, [KeyValues(keys[row_of], values[row_of]) for keys, values in memory]

    def caption_logits(self, text_ids: Tensor) -> Tensor:
        """Scores for the caption token that follows, the last of which ends the caption.

        Args:
            text_ids: How captions begin, without pads, shape (b, i), int64, i < t.

        Returns:
            Shape (b, text_vocab + 1), float32.
        """
        x = self._run(self.embed(text_ids, text_ids[:, :0]))[:, -1]
        return linear(x, self._text_unembedding()).float()

    def decode_step(self, tokens: Tensor, position: int, cache: KVCache | BagCache) -> Tensor:
        """Scores for the image tokens that follow `tokens`.

        Args:
            tokens: The newest token of each candidate, shape (c, g), int64.
            position: Raster position of `tokens`, from the prompt's length to m - 2.
            cache: The cache of `prefill`; gains this token.

        Returns:
            Scores for position + 1, shape (c, g, k), float32.
        """
        slot = image_slot(position, self.sequence)
        if isinstance(cache, BagCache):
            return self.decode_seeing(tokens, position, cache.layers, {"dense": cache.seen(slot)})
        visible = {
            kind: cache.visible(slot, self.mask(kind)) for kind in dict.fromkeys(self._layer_masks)
        }
        return self.decode_seeing(tokens, position, cache.layers, visible)

    def decode_seeing(
        self,
        tokens: Tensor,
        position: int | Tensor,
        memories: Sequence[Memory[Seen]],
        seen: Mapping[LayerMask, Seen],
        *,
        decode_block: DecodeBlock = Block.decode,
    ) -> Tensor:
        """`decode_step` of tokens of which it is known what they see.

        Args:
            tokens: Shape (c, g), int64.
            position: Their raster position; a tensor of shape (1), int64, in a recorded step.
            memories: What each layer remembers; gains the tokens, where `seen` says.
            seen: What they see, by the kind of a layer's mask.
            decode_block: What takes them through a block.

        Returns:
            Scores for position + 1, shape (c, g, k), float32.
        """
        x: Tensor = self.image_embedding(tokens) + self._place(position)  # c g d
        layers = zip(self.block_list(), self._layer_masks, memories, strict=True)
        for block, kind, memory in layers:
            x = decode_block(block, x, memory, seen[kind])
        return self._next_logits(self.final_norm(x))

    def _run(self, x: Tensor, memory: list[KeyValues] | None = None) -> Tensor:
        """Final states of embedded slots from 0 on, shape (b, s, d).

        Each layer's keys and values join `memory`, if there is one: training, which would hold
        them until its loss is known, has none.
        """
        for block, kind in zip(self.block_list(), self._layer_masks, strict=True):
            mask, slots = self.mask(kind), x.shape[1]
            seen = None if mask is None else mask[:slots, :slots]
            pieces = self._pieces_of(kind, x)
            if self.recompute and torch.is_grad_enabled():
                x, key_values = checkpoint(
                    block, x, seen, pieces, use_reentrant=False, preserve_rng_state=False
                )
            else:
                x, key_values = block(x, seen, pieces)
            if memory is not None:
                memory.append(key_values)
        return cast(Tensor, self.final_norm(x))

    def embed_distinct(
        self, text_ids: Tensor, image_prompt: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Distinct rows of what is given, embedded, (b, 1 + t + r, d), and which is whose, (c)."""
        given = text_ids if image_prompt is None else torch.cat([text_ids, image_prompt], dim=1)
        distinct, row_of = torch.unique(given, dim=0, return_inverse=True)  # b t+r
        text_len = self.sequence.text_len
        return self.embed(distinct[:, :text_len], distinct[:, text_len:]), row_of

    def embed(self, text_ids: Tensor, image_tokens: Tensor) -> Tensor:
        """Start, captions (b, t), first image tokens (b, r) as slots, shape (b, 1 + t + r, d).

        Captions may be shorter where no image token follows.
        """
        start = self.start.expand(len(text_ids), 1, -1)
        text_position = self.text_position.weight[: text_ids.shape[1]]
        text = self.text_embedding(text_ids) + text_position  # b t d
        positions = torch.arange(image_tokens.shape[1], device=image_tokens.device)
        return torch.cat([start, text, self._embed_image(image_tokens, positions)], dim=1)

    def _embed_image(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Image tokens, shape (..., r), that stand at raster `positions`, shape (r), embedded."""
        rows = self.row_position(positions // self.sequence.grid_w)
        columns = self.column_position(positions % self.sequence.grid_w)
        embedded: Tensor = self.image_embedding(tokens) + (rows + columns)
        return embedded

    def _place(self, position: int | Tensor) -> Tensor:
        """What is added to an image token at a raster position: shape (d); of a tensor (1, d)."""
        row, column = position // self.sequence.grid_w, position % self.sequence.grid_w
        return self.row_position.weight[row] + self.column_position.weight[column]

    def _text_unembedding(self) -> Tensor:
        if self.config.tie_embeddings:
            # The class "caption ends" shares the row after the word pieces: the first pad's.
            return self.text_embedding.weight[: self.sequence.text_vocab + 1]
        return self.text_unembedding

    def image_unembedding_weight(self) -> Tensor:
        """The image vocabulary's output projection, shape (k, d)."""
        return self.image_embedding.weight if self.config.tie_embeddings else self.image_unembedding

    def _next_logits(self, x: Tensor) -> Tensor:
        """Scores to sample from, in float32 even under autocast: rounded ones tie or flip."""
        if self.image_head is not None:
            return cast(Tensor, self.image_head(x.float()))
        with torch.autocast(x.device.type, enabled=False):
            return linear(x.float(), self.image_unembedding_weight().float())

    def mask(self, kind: LayerMask) -> Tensor | None:
        """Which slots each slot sees, shape (n, n), bool; None where that is all up to its own."""
        return None if kind == "dense" else self.get_buffer(f"{kind}_mask")

    def _pieces_of(self, kind: LayerMask, x: Tensor) -> Pieces | None:
        """How a layer of this kind attends in pieces; None where that is no shorter.

        On a CPU, whole sequences of 1,088 slots took 42 to 110 ms a layer and picture so, 105 to
        113 ms under a mask that is read entry by entry, 72 ms without one (bf16, one thread, with
        the gradient). Short sequences are best written out.
        """
        mask, slots = self.mask(kind), x.shape[1]
        if mask is None or x.device.type != "cpu" or not WRITTEN_OUT_SLOTS < slots == len(mask):
            return None
        if kind not in self._pieces:
            self._pieces[kind] = pieces_of(mask, self.sequence)
        return self._pieces[kind]

    def block_list(self) -> list[Block]:
        """The blocks, first layer first."""
        return cast(list[Block], list(self.blocks))
