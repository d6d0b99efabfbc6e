# SPDX-License-Identifier: Apache-2.0
"""The VAE: a model that draws and measures images, and is no codec."""
