"""How large a model is, from its settings alone: before one is built, a file must have its arrays.

Without this a line of text could ask for all the memory that there is.
"""

from numtape.training.stored import Arrays
from numtape.transformer import GPTConfig, TransformerConfig

Config = GPTConfig | TransformerConfig
# Entries of the table of positions, which is not stored: 4 MB are always allowed.
FREE_POSITIONS = 2**20


def require_room(config: Config, arrays: Arrays) -> None:
    """ValueError unless a model of these settings can consist of these arrays."""
    entries = sum(array.size for array in arrays.values())
    wanted = least_entries(config)
    if wanted > entries:
        raise ValueError(f"its model has at least {wanted} parameters and {entries} are stored")
    if config.layers > len(arrays):
        raise ValueError(f"its model has {config.layers} layers and {len(arrays)} arrays")
    if isinstance(config, TransformerConfig):
        positions = config.max_length * config.d_model
        if positions > max(entries, FREE_POSITIONS):
            raise ValueError(f"max_length {config.max_length} is too long for so small a model")


def least_entries(config: Config) -> int:
    """The entries of the matrices of the model, which are nearly all."""
    width, hidden = config.d_model, config.d_ff or 4 * config.d_model
    attention = 4 * width**2
    layer = attention + 2 * width * hidden * max(config.experts, 1)
    if isinstance(config, GPTConfig):
        return (config.vocab + config.context) * width + config.layers * layer
    vocabularies = config.src_vocab
    if config.tie_embeddings != "all":
        vocabularies += config.tgt_vocab * (1 if config.tie_embeddings else 2)
    return vocabularies * width + config.layers * (2 * layer + attention)
