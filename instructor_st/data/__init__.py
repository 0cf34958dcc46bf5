"""Rows of training and evaluation data: their schema, their files, the data sets made of them."""

from instructor_st.data.schema import Row, parse_row
from instructor_st.data.sources import STARTER_FOLDER, list_data_files, read_records, read_rows
from instructor_st.data.training_sets import TrainingData, build_train_dataset, load_training_data, split_held_out

__all__ = [
    "STARTER_FOLDER",
    "Row",
    "TrainingData",
    "build_train_dataset",
    "list_data_files",
    "load_training_data",
    "parse_row",
    "read_records",
    "read_rows",
    "split_held_out",
]
