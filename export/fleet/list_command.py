"""`soundpost fleet list`."""

from __future__ import annotations

import argparse
import json
import sys
import time

from soundpost.device.broker_options import broker_settings
from soundpost.device.mqtt_link import LinkState
from soundpost.device.terminal import Screen, is_terminal, plain
from soundpost.export.fleet.listening import FleetListener
from soundpost.export.fleet.sensors import Condition, Sensor, choose_sensors, worst_first
from soundpost.export.fleet.table import sensor_record, sensor_rows

_DRAW_EVERY_S = 0.5
# As lines, a table now and then is enough.
_PRINT_EVERY_S = 10.0
_UNBOUNDED = 100_000


def run_list(arguments: argparse.Namespace) -> int:
    """Print the table, once or again and again."""
    conditions = [Condition.parse(text) for text in arguments.where]
    broker = broker_settings(arguments)
    drawing = arguments.watch and not arguments.json and is_terminal(sys.stdout)
    # In a picture, the state of the connection stands in its title, not in a log below it.
    with FleetListener(broker, arguments.base, on_state=_ignore if drawing else None) as fleet:
        fleet.settle(arguments.settle)

        def sensors() -> list[Sensor]:
            return worst_first(choose_sensors(fleet.sensors, arguments.device, conditions).values())

        if drawing:
            with Screen() as screen:
                while screen.key() not in ("q", "Q"):
                    title = f"{broker.address}  " if fleet.connected else "NOT CONNECTED  "
                    rows = sensor_rows(
                        sensors(), *screen.size, title=title, alarm=not fleet.connected
                    )
                    screen.show(rows)
                    time.sleep(_DRAW_EVERY_S)
            return 0
        while True:
            if arguments.json:
                records = [sensor_record(sensor) for sensor in sensors()]
                print(json.dumps(records, indent=None if arguments.watch else 1), flush=True)
            else:
                print(plain(sensor_rows(sensors(), _UNBOUNDED, _UNBOUNDED)), flush=True)
            if not arguments.watch:
                return 0
            time.sleep(_PRINT_EVERY_S)


def _ignore(_state: LinkState, _line: str) -> None:
    pass
