"""A site's own settings, as a hospital writes them."""

from __future__ import annotations

from pathlib import Path

from fedprivseg.core.config import DataConfig
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration


def test_the_settings_may_begin_with_a_byte_order_mark(tiny_scenario, tmp_path):
    path = tmp_path / "station.json"
    paths = {"release": Path("/数据𠮷野"), "cache": Path("/c")}
    settings = SiteConfiguration(folder=tmp_path, site=tiny_scenario.sites[0], data=DataConfig(), **paths)
    path.write_text(settings.model_dump_json(), encoding="utf-8")
    plain = SiteConfiguration.read(path)
    path.write_text(settings.model_dump_json(), encoding="utf-8-sig")
    assert SiteConfiguration.read(path) == plain == settings
    assert str(plain.release) == "/数据𠮷野"
