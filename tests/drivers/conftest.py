from __future__ import annotations

import sys
from pathlib import Path

# Factories go to other processes by name, so their module must be importable there as well.
sys.path.insert(0, str(Path(__file__).parent))
