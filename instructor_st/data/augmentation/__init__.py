"""Rows multiplied by back-translation and paraphrase."""

from instructor_st.data.augmentation.augment_rows import augment_rows
from instructor_st.data.augmentation.folder import AugmentationReport, RowFolder, augment_folder, read_row_folder
from instructor_st.data.augmentation.generation_cache import CachedGenerator
from instructor_st.data.augmentation.text_generators import (
    BackTranslator,
    Checkpoint,
    Paraphraser,
    Sampling,
    TextGenerator,
)

__all__ = [
    "AugmentationReport",
    "BackTranslator",
    "CachedGenerator",
    "Checkpoint",
    "Paraphraser",
    "RowFolder",
    "Sampling",
    "TextGenerator",
    "augment_folder",
    "augment_rows",
    "read_row_folder",
]
