import pytest

# Before any test imports it: the store contract's asserts are to tell what they compared.
pytest.register_assert_rewrite("flask_ailimit.testing")
