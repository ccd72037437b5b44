"""Writes the log of each night: all plays so far of a small invented service, as TSV.

    python write_logs.py FOLDER 2026-11-20 2026-11-21 2026-11-22

Listeners prefer one of eight genres, and a few new ones come every day.
"""

import random
import sys
from pathlib import Path

folder, days = Path(sys.argv[1]), sys.argv[2:]
draw = random.Random(7)
lines = []
for number, day in enumerate(days):
    for user in range(300 + 20 * number):
        for _ in range(20 if number == 0 else 3):
            genre = user % 8 if draw.random() < 0.8 else draw.randrange(8)
            song = 8 * int(50 * draw.random() ** 2) + genre
            time = 1_763_500_000 + 86_400 * number + draw.randrange(86_400)
            lines.append(f"listener-{user}\tsong-{song}\t{time}")
    log = folder / f"date={day}" / "plays.tsv"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("user\titem\ttime\n" + "\n".join(lines) + "\n", encoding="utf-8")
    print(log, len(lines))
