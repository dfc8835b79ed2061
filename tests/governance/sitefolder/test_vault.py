"""The vault: named arrays, whole or not at all, and no way out of its folder."""

from __future__ import annotations

import stat

import numpy as np
import pytest

from fedprivseg.governance.sitefolder.vault import Vault


def test_arrays_come_back_and_only_the_owner_may_read(tmp_path):
    vault = Vault(tmp_path / "vault")
    assert not vault.has("codec")
    vault.save("codec", {"w": np.arange(6.0).reshape(2, 3)[:, ::2]})
    assert vault.has("codec")
    np.testing.assert_array_equal(vault.load("codec")["w"], [[0, 2], [3, 5]])
    assert stat.S_IMODE(vault.path("codec").stat().st_mode) == 0o600
    assert stat.S_IMODE(vault.folder.stat().st_mode) == 0o700


def test_a_failed_save_leaves_what_was_there(tmp_path):
    vault = Vault(tmp_path)
    vault.save("codec", {"w": np.ones(2)})
    with pytest.raises(Exception):  # noqa: B017, PT011 - safetensors raises its own
        vault.save("codec", {"w": np.array([object()])})
    np.testing.assert_array_equal(vault.load("codec")["w"], [1, 1])


@pytest.mark.parametrize("name", ["../key", "a/b", "", ".", "A", "a" * 65, "a.b"])
def test_names_cannot_leave_the_folder(tmp_path, name):
    with pytest.raises(ValueError, match="vault name"):
        Vault(tmp_path).path(name)
