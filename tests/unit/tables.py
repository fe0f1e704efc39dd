"""Tables of predictions for the tests."""

import numpy as np
import pandas as pd

from helpers import evaluation

CLASSES = ["bad", "good"]


def predicted(rows, classes=CLASSES):
    """A table of predictions. rows: (item, view, label, probabilities)."""
    catalog = pd.DataFrame([row[:3] for row in rows], columns=["item", "view", "label"])
    catalog["group"] = catalog["item"]
    catalog["path"] = [f"{item}_{view}.jpg" for item, view in zip(catalog["item"], catalog["view"], strict=True)]
    return evaluation.predictions(catalog, np.array([row[3] for row in rows]), classes)
