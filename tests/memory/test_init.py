import subprocess
import sys

import pytest

import marc.memory


def test_every_public_name_can_be_had():
    assert all(getattr(marc.memory, name) for name in marc.memory.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = marc.memory.nonsense


def test_retrieval_and_stored_memories_need_no_torch():
    code = "import sys, marc.memory, marc.memory.select, marc.memory.index; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
