"""Raw data sets, whatever their form, read as streams of records."""

from instructor_st.data.sources.open_source import open_source
from instructor_st.data.sources.records import BadRecord, BadRecordError, OnBadRecord, Record, raise_bad_record
from instructor_st.data.sources.source_files import SourceFile, list_source_files
from instructor_st.data.sources.specs import (
    FileSource,
    HubSource,
    MediSource,
    NaturalInstructionsSource,
    RegistrySource,
    Source,
)

__all__ = [
    "BadRecord",
    "BadRecordError",
    "FileSource",
    "HubSource",
    "MediSource",
    "NaturalInstructionsSource",
    "OnBadRecord",
    "Record",
    "RegistrySource",
    "Source",
    "SourceFile",
    "list_source_files",
    "open_source",
    "raise_bad_record",
]
