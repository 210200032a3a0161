"""Configuration files say what they are given, and ports are free and different."""

from __future__ import annotations

import socket
from pathlib import Path

from oslo_config import cfg

from cloud.layout import free_ports
from cloud.services.configuration import write


def test_oslo_config_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "service.conf"
    write(path, {"DEFAULT": {"quiet": True}, "database": {"connection": "rome+redis://u:pa$$w$rd@h/db"}})
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.BoolOpt("quiet"))
    conf.register_opt(cfg.StrOpt("connection"), group="database")
    conf(["--config-file", str(path)])
    assert conf.quiet is True
    assert conf.database.connection == "rome+redis://u:pa$$w$rd@h/db"


def test_each_port_is_free_and_another() -> None:
    names = [f"service-{number}" for number in range(50)]
    ports = free_ports(names)
    assert sorted(ports) == sorted(names)
    assert len(set(ports.values())) == len(names)
    for port in ports.values():
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
