# SPDX-License-Identifier: Apache-2.0
"""Float networks: autoencoder and quantiser. Nothing here takes part in the probability path."""
