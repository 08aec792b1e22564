"""Transformers: the published encoder-decoder, GPT, their parts, and decoding."""

from numtape.transformer.attention import MultiHeadAttention, padding_mask
from numtape.transformer.blocks import Decoder, DecoderLayer, Encoder, EncoderLayer, Residual
from numtape.transformer.cache import KeyValueCache
from numtape.transformer.config import GPTConfig, TransformerConfig
from numtape.transformer.decoding import beam_search, generate, greedy_decode
from numtape.transformer.feed_forward import FeedForward
from numtape.transformer.gpt import GPT
from numtape.transformer.mixture import MixtureOfExperts
from numtape.transformer.model import Transformer
from numtape.transformer.positions import (
    LearnedPositions,
    SinusoidalPositions,
    sinusoidal_positions,
)

__all__ = [
    "GPT",
    "Decoder",
    "DecoderLayer",
    "Encoder",
    "EncoderLayer",
    "FeedForward",
    "GPTConfig",
    "KeyValueCache",
    "LearnedPositions",
    "MixtureOfExperts",
    "MultiHeadAttention",
    "Residual",
    "SinusoidalPositions",
    "Transformer",
    "TransformerConfig",
    "beam_search",
    "generate",
    "greedy_decode",
    "padding_mask",
    "sinusoidal_positions",
]
