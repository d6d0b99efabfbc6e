# SPDX-License-Identifier: Apache-2.0
"""Types of arrays that hold pictures."""

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""Pictures [H, W, 3] of 8 bits a channel, R G B, and planes [H, W] such as alpha."""
