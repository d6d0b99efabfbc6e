# SPDX-License-Identifier: Apache-2.0
"""What runs workers: processes of this machine, or a Ray cluster. Engines know chunks and records, and no pictures.

An engine takes chunks as they come, never many more than it is doing, and gives the records of each once it is done,
in whatever order.
"""
