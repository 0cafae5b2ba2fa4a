"""The structures of `structures.h`, as ctypes sees them; the fields mean what its comments say."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_float, c_int64, c_void_p


class Linear(ctypes.Structure):
    """A packed linear layer."""

    _fields_ = (
        ("weights", c_void_p),
        ("bias", c_void_p),
        ("scales", c_void_p),
        ("sums", c_void_p),
        ("groups", c_int64),
        ("panels", c_int64),
    )


class Norm(ctypes.Structure):
    """A layer normalisation."""

    _fields_ = (("gain", c_void_p), ("offset", c_void_p))


class Layer(ctypes.Structure):
    """A transformer block."""

    _fields_ = (
        ("attention_norm", Norm),
        ("qkv", Linear),
        ("query_gain", c_void_p),
        ("key_gain", c_void_p),
        ("out", Linear),
        ("mlp_norm", Norm),
        ("mlp_in", Linear),
        ("mlp_out", Linear),
    )


class Model(ctypes.Structure):
    """A model, ready to decode."""

    _fields_ = (
        ("format", c_int64),
        ("layers", c_int64),
        ("width", c_int64),
        ("hidden", c_int64),
        ("heads", c_int64),
        ("grid_w", c_int64),
        ("layer", POINTER(Layer)),
        ("final_norm", Norm),
        ("head", Linear),
        ("image_embedding", c_void_p),
        ("row_position", c_void_p),
        ("column_position", c_void_p),
    )


class LayerCache(ctypes.Structure):
    """One layer's keys and values, and which of them the newest query sees."""

    _fields_ = (
        ("prefix_keys", c_void_p),
        ("prefix_values", c_void_p),
        ("suffix_keys", c_void_p),
        ("suffix_values", c_void_p),
        ("seen_prefix", c_void_p),
        ("seen_prefix_count", c_int64),
        ("seen_suffix", c_void_p),
        ("seen_suffix_count", c_int64),
    )


class Step(ctypes.Structure):
    """One decode step: its tokens, cache and results."""

    _fields_ = (
        ("captions", c_int64),
        ("candidates", c_int64),
        ("prefix_len", c_int64),
        ("suffix_len", c_int64),
        ("position", c_int64),
        ("tokens", c_void_p),
        ("cache", POINTER(LayerCache)),
        ("scratch", c_void_p),
        ("logits", c_void_p),
        ("threads", c_int64),
    )


class LayerPrefix(ctypes.Structure):
    """One layer's keys and values of a prefix, and which of its slots each slot sees."""

    _fields_ = (
        ("keys", c_void_p),
        ("values", c_void_p),
        ("seen", c_void_p),
        ("seen_begin", c_void_p),
    )


class Prefill(ctypes.Structure):
    """The reading of some prefixes: their embedded slots, and where results go."""

    _fields_ = (
        ("captions", c_int64),
        ("prefix_len", c_int64),
        ("embedded", c_void_p),
        ("layer", POINTER(LayerPrefix)),
        ("scratch", c_void_p),
        ("logits", c_void_p),
        ("threads", c_int64),
    )


class Choice(ctypes.Structure):
    """One choice of the next tokens from their scores."""

    _fields_ = (
        ("captions", c_int64),
        ("candidates", c_int64),
        ("vocab", c_int64),
        ("stride", c_int64),
        ("conditional", c_void_p),
        ("null", c_void_p),
        ("noise", c_void_p),
        ("noise_stride", c_int64),
        ("guidance_scale", c_float),
        ("temperature", c_float),
        ("top_p", c_float),
        ("top_k", c_int64),
        ("scratch", c_void_p),
        ("tokens", c_void_p),
        ("log_probability", c_void_p),
        ("threads", c_int64),
    )
