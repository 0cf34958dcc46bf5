"""The paper's template for instructions."""

from __future__ import annotations

__all__ = ["format_instruction"]


def format_instruction(text_type: str, *, domain: str = "", objective: str = "") -> str:
    """Write an instruction by the template `Represent the (domain) (text type) for (task objective): `.

    The three parts are those of Su et al. 2022 (arXiv 2212.09741, section 2.3); only the text type is required. The
    punctuation is one colon and one space.

    Args:
        text_type: What is embedded: `"question"`, `"customer review"`, ...
        domain: Where it comes from: `"medical"`, `"Wikipedia"`, ...
        objective: What the embedding is for: `"retrieving supporting documents"`, ...

    Returns:
        The instruction, ready to be put before a text.

    Raises:
        ValueError: If the text type is blank, or a part contains a colon or a line break.
    """
    parts = {"text_type": text_type, "domain": domain, "objective": objective}
    for name, part in parts.items():
        if ":" in part or "\n" in part:
            raise ValueError(f"{name} must have neither a colon nor a line break: {part!r}.")
    if not text_type.strip():
        raise ValueError("text_type must say what is embedded, such as 'question'.")
    subject = " ".join([*domain.split(), *text_type.split()])
    purpose = f" for {' '.join(objective.split())}" if objective.strip() else ""
    return f"Represent the {subject}{purpose}: "
