# SPDX-License-Identifier: Apache-2.0
"""One model on one device: weights files, the registry of installed models, the range of lambdas."""
