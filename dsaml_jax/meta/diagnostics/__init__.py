"""Diagnostics of meta-gradients: agreement of estimators, curvature, noise, and cost."""

from dsaml_jax.meta.diagnostics.asymmetry import asymmetry
from dsaml_jax.meta.diagnostics.cost import Cost, Measured, measure
from dsaml_jax.meta.diagnostics.diagnosis import Diagnosis, diagnose, scalars
from dsaml_jax.meta.diagnostics.noise import Noise, gradient_noise

__all__ = [
    "Cost",
    "Diagnosis",
    "Measured",
    "Noise",
    "asymmetry",
    "diagnose",
    "gradient_noise",
    "measure",
    "scalars",
]
