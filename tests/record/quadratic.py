"""The quadratic of `thermodl validate --full`, for the tests that record it."""

from thermodl.record.quadratic import Quadratic, record_pair, record_quadratic

__all__ = ["Quadratic", "record_pair", "record_quadratic"]
