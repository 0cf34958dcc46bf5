"""Rows of training and evaluation data: their schema, their files, the data sets made of them."""

from instructor_st.data.labelled import LabelKind, LabelledTexts, read_labelled_texts
from instructor_st.data.row_files import read_records, read_rows
from instructor_st.data.schema import Row, parse_row
from instructor_st.data.sources.record_files import list_data_files
from instructor_st.data.starter import STARTER_ROWS_PER_TASK, load_starter_data
from instructor_st.data.training_sets import TrainingData, build_train_dataset, load_training_data, split_held_out

__all__ = [
    "STARTER_ROWS_PER_TASK",
    "LabelKind",
    "LabelledTexts",
    "Row",
    "TrainingData",
    "build_train_dataset",
    "list_data_files",
    "load_starter_data",
    "load_training_data",
    "parse_row",
    "read_labelled_texts",
    "read_records",
    "read_rows",
    "split_held_out",
]
