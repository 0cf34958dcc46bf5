from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from instructor_st.training.heads import (
    ClassificationHead,
    PairsHead,
    RegressionHead,
    SimilarityHead,
    balance_classes,
    balance_labels,
)

LABELS = ["zebra", "ape", "mole"]


def test_balanced_classes_are_those_of_scikit_learn():
    targets = [2, 0, 1, 0, 2, 2, 2, 0, 2]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.array(targets))
    np.testing.assert_allclose(balance_classes(torch.tensor(targets), 3), expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"Classes \[3\] of 4 have no row"):
        balance_classes(torch.tensor(targets), 4)
    with pytest.raises(ValueError, match="row 0 is 2; classes go from 0 to 1"):
        balance_classes(torch.tensor(targets), 2)


def test_balanced_labels():
    marks = torch.tensor([[1, 0], [0, 1], [0, 1], [0, 1], [1, 1]])
    assert balance_labels(marks).tolist() == [1.5, 0.25]
    with pytest.raises(ValueError, match=r"Labels \[0, 2\] stand on no row or on all 2"):
        balance_labels(torch.tensor([[1, 1, 0], [1, 0, 0]]))
    with pytest.raises(ValueError, match=r"shape \(2,\) came"):
        balance_labels(torch.tensor([1, 0]))
    with pytest.raises(ValueError, match="row 1, label 0 is 2"):
        balance_labels(torch.tensor([[1], [2]]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClassificationHead(0, LABELS), "dimension must be a whole number above 0, not 0"),
        (lambda: ClassificationHead(2.0, LABELS), "dimension must be a whole number above 0, not 2.0"),
        (lambda: ClassificationHead(2, "ab"), "labels must be 2 or more names that are not empty, not 'ab'"),
        (lambda: ClassificationHead(2, ["a"]), "labels must be 2 or more"),
        (lambda: ClassificationHead(2, [], multi_label=True), "labels must be 1 or more"),
        (lambda: ClassificationHead(2, ["a", ""]), "labels must be"),
        (lambda: ClassificationHead(2, ["a", 1]), "labels must be"),
        (lambda: ClassificationHead(2, ["a", "b", "a"]), "labels must differ; 'a' came more than once"),
        (lambda: ClassificationHead(2, LABELS, multi_label=1), "multi_label must be true or false, not 1"),
        (lambda: ClassificationHead(2, LABELS, class_weights=[1, 2]), r"one number a label, 3; \[1, 2\] came"),
        (lambda: ClassificationHead(2, LABELS, class_weights=torch.tensor(1.0)), "one number a label, 3"),
        (lambda: ClassificationHead(2, LABELS, class_weights=[1, 0, 1]), "weight of 'ape' must be .* above 0, not 0"),
        (lambda: ClassificationHead(2, LABELS, scale=math.inf), "scale must be a finite number above 0, not inf"),
        (lambda: RegressionHead(0, mean=0, spread=1), "dimension must be"),
        (lambda: RegressionHead(2, mean=math.nan, spread=1), "mean must be a finite number, not nan"),
        (lambda: RegressionHead(2, mean="0", spread=1), "mean must be a finite number, not '0'"),
        (lambda: RegressionHead(2, mean=0, spread=0.0), "spread is 0: all targets are equal"),
        (lambda: RegressionHead(2, mean=0, spread=-1), "spread must be a finite number above 0, not -1"),
        (lambda: RegressionHead(2, mean=0, spread=1, scale=0), "scale must be"),
        (lambda: PairsHead(objective="triplet"), "objective must be one of 'infonce', 'margin', not 'triplet'"),
        (lambda: PairsHead(temperature=0), "temperature must be above 0"),
        (lambda: PairsHead(margin=-1), "margin must be 0 or more"),
        (lambda: SimilarityHead(True), "scale must be a finite number above 0, not True"),
        (lambda: PairsHead.from_config({"kind": "similarity"}), "kind 'similarity' makes no pairs head"),
        (lambda: PairsHead.from_config({"kind": "pairs", "size": 3}), "makes no pairs head: .*'size'"),
        (lambda: RegressionHead.from_config({"kind": "regression"}), "makes no regression head: .*'dimension'"),
    ],
)
def test_settings_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_numbers_of_numpy_and_torch_are_settings_that_json_can_hold():
    head = ClassificationHead(np.int64(2), LABELS, class_weights=torch.tensor([1, 2, 3]), scale=np.float32(0.5))
    config = head.config()
    assert config["class_weights"] == [1.0, 2.0, 3.0]
    assert [type(config[key]) for key in ("dimension", "scale")] == [int, float]
    regression = RegressionHead(2, mean=np.float32(1.5), spread=np.int64(2))
    assert [type(regression.config()[key]) for key in ("mean", "spread")] == [float, float]
