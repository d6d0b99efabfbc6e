# SPDX-License-Identifier: Apache-2.0
"""Where results go: a folder that mirrors the collection, tar shards, Parquet shards."""

from vqcodec.batch.sinks.folder import FolderSink
from vqcodec.batch.sinks.writing import Sink

__all__ = ["FolderSink", "Sink"]
