"""From folders, manifests and archives of photos to batches for training."""

from __future__ import annotations

from lucid.data.audit import AuditReport, Finding, audit
from lucid.data.samples import Dataset, Sample
from lucid.data.sources import open_data
from lucid.data.split import Split, split

__all__ = ["AuditReport", "Dataset", "Finding", "Sample", "Split", "audit", "open_data", "split"]
