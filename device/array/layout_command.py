"""`soundpost array layout`: positions of the microphones of an array yet to be built."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from soundpost.device.command import Command
from soundpost.device.interrupt import interrupts_wait

_DESCRIPTION = """\
Lays out microphones on a disc, and says how loud the largest side lobe is: what a beam of the array
hears from directions that it does not look at, up to --max-hz.

  grid        a square lattice; has its main lobe again elsewhere once microphones are too far apart
  vogel       a sunflower's spiral: no two microphones at one distance or on one radius
  optimised   moved from the spiral until the largest side lobe is low; takes some seconds

Sound is expected from anywhere in front of the array; --sources image expects it only where the
acoustic image looks (--half-width, --half-height), and buys lower side lobes there with a loud
ghost of whatever is heard from beside it.

examples:
  soundpost array layout optimised --out array.json
  soundpost array layout vogel --mics 64 --diameter 0.3 --out array.json --xml array.xml
  soundpost array layout optimised --max-hz 8000 --out array.json --picture array.svg
"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=("vogel", "optimised", "grid"))
    parser.add_argument("--mics", type=int, default=128, metavar="N", help="default: 128")
    parser.add_argument(
        "--diameter", type=float, default=0.45, metavar="M", help="of the disc (default: 0.45 m)"
    )
    parser.add_argument("--max-hz", type=float, default=6_400.0, metavar="HZ", help="default: 6400")
    parser.add_argument("--sources", choices=("front", "image"), default="front")
    parser.add_argument(
        "--half-width", type=float, default=45.0, metavar="DEG", help="of the image (default: 45)"
    )
    parser.add_argument(
        "--half-height", type=float, default=32.0, metavar="DEG", help="of the image (default: 32)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="array.json")
    parser.add_argument("--xml", type=Path, metavar="FILE", help="also as Acoular's <MicArray>")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="also as a picture")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _run(arguments: argparse.Namespace) -> int:
    with interrupts_wait():
        from tqdm import tqdm

        from soundpost.device.array import layouts
        from soundpost.device.array.geometry import ImageGrid, vogel_spiral
        from soundpost.device.array.geometry_files import (
            ArrayDescription,
            write_acoular_xml,
            write_array,
        )

    image = ImageGrid(half_width_deg=arguments.half_width, half_height_deg=arguments.half_height)
    hearing = layouts.Hearing(image, arguments.max_hz, arguments.sources)
    n_mics, diameter_m = arguments.mics, arguments.diameter
    rivals = {
        "grid": layouts.regular_grid(n_mics, diameter_m),
        "vogel": vogel_spiral(n_mics, diameter_m),
    }
    if arguments.kind == "optimised":
        with tqdm(
            total=layouts.N_ITERATIONS, desc="layout", unit="step", disable=arguments.quiet
        ) as bar:
            rivals["optimised"] = layouts.optimised_layout(hearing, n_mics, diameter_m, bar.update)
    geometry = rivals[arguments.kind]
    levels = {
        sources: {
            name: layouts.largest_side_lobe_db(
                rival, layouts.Hearing(image, arguments.max_hz, sources), diameter_m
            )
            for name, rival in rivals.items()
        }
        for sources in ("front", "image")
    }
    spacing_m = layouts.smallest_spacing_m(geometry)
    write_array(arguments.out, ArrayDescription(geometry, image=image))
    if arguments.xml is not None:
        write_acoular_xml(arguments.xml, geometry)
    if arguments.picture is not None:
        from soundpost.device.array.layout_picture import write_layout_picture

        front, within = (abs(levels[sources][arguments.kind]) for sources in ("front", "image"))
        caption = (
            f"largest side lobe: {front:.1f} dB below the main lobe for sound from anywhere in "
            f"front, {within:.1f} dB from the image alone"
        )
        write_layout_picture(
            arguments.picture,
            geometry,
            layouts.Hearing(image, arguments.max_hz),
            diameter_m,
            caption,
        )
    if arguments.json:
        table = {"array": str(arguments.out), "smallest_spacing_m": spacing_m}
        print(json.dumps({**table, "largest_side_lobe_db": levels}, indent=1))
        return 0
    print(
        f"{arguments.out}: {n_mics} microphones on {diameter_m:g} m, at least "
        f"{1000 * spacing_m:.0f} mm apart"
    )
    print(f"largest side lobe up to {arguments.max_hz:g} Hz, in dB below the main lobe:")
    print("  " + " " * 28 + "".join(f"{name:>11}" for name in rivals))
    for sources, what in (("front", "sound from anywhere in front"), ("image", "from the image")):
        found = "".join(f"{abs(levels[sources][name]):>11.1f}" for name in rivals)
        print(f"  {what:<28}{found}")
    return 0


COMMAND = Command("positions for the microphones of an array", _DESCRIPTION, _add_arguments, _run)
