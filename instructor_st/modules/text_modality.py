"""Pinning of an encoder to plain text."""

from __future__ import annotations

from sentence_transformers.base.modules import Transformer

__all__ = ["pin_text_modality"]


def pin_text_modality(encoder: Transformer) -> None:
    """Make an encoder read every input as plain text, in place.

    A checkpoint with a chat template would otherwise wrap each text in a conversation, which moves the instruction and
    adds tokens that nobody wrote.

    Args:
        encoder: The encoder.

    Raises:
        ValueError: If it cannot read plain text.
    """
    if "text" not in encoder.modality_config:
        modalities = ", ".join(map(str, encoder.modality_config))
        raise ValueError(f"{encoder!r} has no plain text input (modalities: {modalities}); instructions need one.")
    encoder.modality_config = {"text": encoder.modality_config["text"]}
    encoder.input_formatter.supported_modalities = ["text"]
