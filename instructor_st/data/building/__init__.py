"""Raw data sets built into one clean mixture of training rows."""

from instructor_st.data.building.build import BuildReport, TaskResult, build_mixture
from instructor_st.data.building.cleaning import clean_examples
from instructor_st.data.building.contamination import EvaluationTexts
from instructor_st.data.building.examples import ClassText, InputOutput, ScoredPair, TextPair
from instructor_st.data.building.instruction_negatives import find_instruction_negatives
from instructor_st.data.building.manifest import build_manifest, format_training_data, write_manifest
from instructor_st.data.building.mixture import Mixture, MixtureError, TaskSpec, read_mixture
from instructor_st.data.building.pair_construction import pair_classes, pair_inputs_outputs, pair_scored

__all__ = [
    "BuildReport",
    "ClassText",
    "EvaluationTexts",
    "InputOutput",
    "Mixture",
    "MixtureError",
    "ScoredPair",
    "TaskResult",
    "TaskSpec",
    "TextPair",
    "build_manifest",
    "build_mixture",
    "clean_examples",
    "find_instruction_negatives",
    "format_training_data",
    "pair_classes",
    "pair_inputs_outputs",
    "pair_scored",
    "read_mixture",
    "write_manifest",
]
