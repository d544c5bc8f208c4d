"""Signal equations: maps in, image out.

Elementwise on maps with broadcasting, differentiable, on any device. Times in seconds, angles in degrees, magnetisation
transfer saturation as a fraction; proton density in any unit, which is the unit of the signal. Parameters are numbers
or tensors that broadcast against the maps, ``(B, 1, 1, 1)`` for another protocol for each of B volumes. The result is a
magnitude unless ``signed=True``; where a relaxation time is zero or missing it is 0, and so is every gradient.
"""

from monai_cl.qmri.fast_spin_echo import fast_spin_echo
from monai_cl.qmri.gradient_echo import spoiled_gradient_echo
from monai_cl.qmri.inversion import double_inversion_recovery, inversion_recovery
from monai_cl.qmri.mp2rage import mp2rage, mp2rage_images, uniform_image
from monai_cl.qmri.mprage import mprage
from monai_cl.qmri.spin_echo import spin_echo
from monai_cl.qmri.ssfp import balanced_ssfp
from monai_cl.qmri.susceptibility import susceptibility_weighted

__all__ = [
    "balanced_ssfp",
    "double_inversion_recovery",
    "fast_spin_echo",
    "inversion_recovery",
    "mp2rage",
    "mp2rage_images",
    "mprage",
    "spin_echo",
    "spoiled_gradient_echo",
    "susceptibility_weighted",
    "uniform_image",
]
