from __future__ import annotations

from hypothesis import settings

settings.register_profile("busy", deadline=None, max_examples=50)  # a slow machine is no failure
settings.load_profile("busy")
