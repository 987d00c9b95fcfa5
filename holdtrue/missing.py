"""How files and requests say that a value is missing."""

from __future__ import annotations

CSV_NULLS = (
    *("", "#N/A", "#N/A N/A", "#NA", "N/A", "NA", "NULL", "n/a", "null"),
    *("-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "NaN", "nan"),
)
"""What a missing value is written as in CSV, wherever it is read: in training, files, requests."""
