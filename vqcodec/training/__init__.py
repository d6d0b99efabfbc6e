# SPDX-License-Identifier: Apache-2.0
"""Training of the autoencoder and of the priors. Nothing here is needed to encode or decode."""
