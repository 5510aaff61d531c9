"""Calls the API as scripts of 2017 do, and prints what was answered as JSON.

Arguments: URL of the API, user, password, name of a function below.
"""
import json
import sys

import requests

url, user, password, function = sys.argv[1:]
known = (user, password)


def no_content_type():
    body = json.dumps({"type": "flannel_server"})
    return [
        requests.put(url + "/network/py-bytes", data=body.encode(), auth=known),
        requests.put(url + "/network/py-text", data=body, auth=known),
    ]


def without_body():
    return [
        requests.put(url + "/cluster/py-empty", auth=known),
        requests.put(url + "/network/py-empty", auth=known),
        requests.delete(url + "/cluster/py-empty", auth=known),
    ]


def anonymous():
    # What requests makes of auth=(None, None): "None" twice.
    return [
        requests.get(url + "/clusters", auth=("None", "None")),
        requests.put(url + "/cluster/py-anonymous", auth=("None", "None")),
        requests.get(url + "/nowhere", auth=("None", "None")),
        requests.get(url + "/clusters"),
    ]


def chunked():
    def pieces(*parts):
        yield from parts

    return [
        requests.put(url + "/network/py-chunked", data=pieces(b'{"type": ', b'"flannel_server"}'), auth=known),
        requests.put(url + "/network/py-broken", data=pieces(b'{"type": '), auth=known),
    ]


answers = globals()[function]()
for answer in answers:
    assert "Content-Type" not in answer.request.headers, answer.request.headers
json.dump([{"status": a.status_code, "body": a.text, "type": a.headers.get("Content-Type")} for a in answers], sys.stdout)
