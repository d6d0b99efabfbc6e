# SPDX-License-Identifier: Apache-2.0
"""Image files drawn under the names that they have in public suites: PngSuite, and the test images of image-rs."""
