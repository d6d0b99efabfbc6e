# SPDX-License-Identifier: Apache-2.0
"""Where the pictures of a collection come from: folders, lists, tar files and Parquet files, local or by URL."""

from vqcodec.batch.sources.opening import Source, SourceError, source

__all__ = ["Source", "SourceError", "source"]
