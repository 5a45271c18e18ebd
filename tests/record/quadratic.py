"""The losses of `thermodl validate --full`, for the tests that record them."""

from thermodl.record.nonlinear import record_double_well, record_scale_invariant
from thermodl.record.quadratic import Quadratic, record_pair, record_quadratic

__all__ = ["Quadratic", "record_double_well", "record_pair", "record_quadratic", "record_scale_invariant"]
