#!/usr/bin/env bash
# pympi-ling 1.71 (the library that reads ELAN's .eaf in Python), Python 3.11.
#
# Guess:  the times of get_annotation_data_for_tier are those of the linked video.
# Is:     they are ELAN's own. A media file that was shifted against another in
#         ELAN's synchronization mode has a TIME_ORIGIN, which the library reads and
#         hands on in get_linked_files, but adds to no time: what lies at 1 to 3 s is
#         at 3 to 5 s of a video whose TIME_ORIGIN is 2000.
# Seen:   annotation 1000 to 3000 ms, TIME_ORIGIN 2000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pympi-ling==1.71
cat > "$folder/a.eaf" <<'END'
<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2026-01-01T00:00:00+00:00" FORMAT="3.0"
  VERSION="3.0" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv3.0.xsd">
  <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///a.mp4" MIME_TYPE="video/mp4"
      RELATIVE_MEDIA_URL="./a.mp4" TIME_ORIGIN="2000"/>
  </HEADER>
  <TIME_ORDER>
    <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="1000"/>
    <TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="3000"/>
  </TIME_ORDER>
  <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="actions">
    <ANNOTATION>
      <ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1"
        TIME_SLOT_REF2="ts2">
        <ANNOTATION_VALUE>jump</ANNOTATION_VALUE>
      </ALIGNABLE_ANNOTATION>
    </ANNOTATION>
  </TIER>
  <LINGUISTIC_TYPE GRAPHIC_REFERENCES="false" LINGUISTIC_TYPE_ID="default-lt"
    TIME_ALIGNABLE="true"/>
</ANNOTATION_DOCUMENT>
END
"$folder/venv/bin/python" - "$folder/a.eaf" <<'END'
import sys

import pympi

file = pympi.Elan.Eaf(sys.argv[1])
((start, end, _),) = file.get_annotation_data_for_tier('actions')
(media,) = file.get_linked_files()
print(f'annotation {start} to {end} ms, TIME_ORIGIN {media["TIME_ORIGIN"]}')
assert (start, end, media['TIME_ORIGIN']) == (1000, 3000, '2000')
END
