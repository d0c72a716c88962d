"""What meta-gradients are like: agreement of estimators, curvature, noise, cost."""

from dsaml_jax.meta.diagnostics.cost import Cost, costs
from dsaml_jax.meta.diagnostics.diagnosis import Diagnosis, diagnose, scalars
from dsaml_jax.meta.diagnostics.noise import Noise, gradient_noise

__all__ = ["Cost", "Diagnosis", "Noise", "costs", "diagnose", "gradient_noise", "scalars"]
