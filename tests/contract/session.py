"""Runs a session of a page, and compares its output: session.py PAGE MARKER [EXPECTED MARKER]

The command is the block below the marker. The event that it prints must be the one in the next
block, or in that of another session. Times differ. The event's id follows from its client, so it is
compared only if the client is the one of the documents, `revertd`.
"""

import json
import os
import re
import subprocess
import sys
import urllib.parse


def blocks(page, marker):
    with open(page, encoding="utf-8") as file:
        _, _, rest = file.read().partition(f"<!-- {marker} -->\n")
    return re.findall(r"^```\w*\n(.*?)^```$", rest, re.DOTALL | re.MULTILINE)


def comparable(event, with_id):
    del event["time"]
    if not with_id:
        del event["id"]
    return event


page, marker, *expected = sys.argv[1:]
command = blocks(page, marker)[0]
wanted = blocks(*(expected or (page, marker)))[1]
user = urllib.parse.urlsplit(os.environ["REVERTD_AMQP__URL"]).username
printed = subprocess.run(["sh", "-e", "-c", command], stdout=subprocess.PIPE, check=True).stdout
seen, wanted = (comparable(json.loads(text), user == "revertd") for text in (printed, wanted))
if seen != wanted:
    sys.exit(f"{page}: {marker} printed {json.dumps(seen, indent=2)}")
