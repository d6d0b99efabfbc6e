# SPDX-License-Identifier: Apache-2.0
"""The choice of index maps for a picture. Decoders know nothing of it."""
