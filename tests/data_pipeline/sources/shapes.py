"""Records in every shape that is read, and what an attacker or a broken disk makes of them."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

CHARADES = [
    "AB12C 3.2 9.75##a person opens the fridge.",
    "AB12C 0.0 4.5##the person sings",
    "ZZ900 12.0 12.0##person throws a ball ## twice.",
]

ACTIVITYNET = {
    "v_one": {
        "duration": 61.5,
        "timestamps": [[0.4, 20.0], [18.25, 61.5]],
        "sentences": ["A man paints a wall. ", "He cleans the brush"],
    },
    "v_two": {"duration": 30, "timestamps": [[7, 9.5]], "sentences": ["Two dogs play."]},
}

QVHIGHLIGHTS = [
    {
        "qid": 11,
        "query": "A cook slices onions.",
        "duration": 150,
        "vid": "abcDEF_60.0_210.0",
        "relevant_clip_ids": [1, 2],
        "relevant_windows": [[2, 6], [100, 130]],
    },
    {"qid": 12, "query": "A bus", "duration": 150, "vid": "x-1", "relevant_windows": [[0, 150]]},
]

OVO_REALTIME = {
    "id": 3,
    "task": "OCR",
    "video": "games/list&index=1.mp4",
    "realtime": 54.2,
    "question": "Which number is on the door?",
    "answer": "It is 12.",
    "options": ["7", "12", "21"],
    "gt": 1,
}
OVO_CLUE = {
    "id": 900,
    "task": "CRR",
    "video": "films/a.mp4",
    "question": "What does she do with the key?",
    "answer": "She hides it.",
    "ask_time": 297,
    "clue_time": 308.9,
    "test_info": [{"realtime": 297, "type": 0}, {"realtime": 310, "type": 1}],
}
OVO_STEPS = {
    "id": 901,
    "task": "SSR",
    "video": "how/b.mp4",
    "tutorial": "ChangeABulb",
    "all_steps": ["take out the old bulb", "put in the new one"],
    "start_time": [25, 31.5],
    "end_time": [30, 49],
    "test_info": [],
}
OVO_REPETITIONS = {
    "id": 902,
    "task": "REC",
    "video": "p/video_1.mp4",
    "activity": "dropping something",
    "start_times": [0, 6, 15],
    "end_times": [5, 13.9, 18],
    "test_info": [{"realtime": 5, "count": 1}],
}
OVO = [OVO_REALTIME, OVO_CLUE, OVO_STEPS, OVO_REPETITIONS]

STREAMINGBENCH = [
    {
        "time": "[0:09:40 - 0:10:10]",
        "questions": [
            {
                "task_type": "Proactive Output",
                "question": 'When the light turns green, output "Go".',
                "time_stamp": "00:10:18",
                "ground_truth_time_stamp": "00:10:25",
                "ground_truth_output": "Go",
                "required_ability": "working memory",
            }
        ],
        "video_categories": "traffic",
        "video_path": "./videos/sample_1_proactive.mp4",
    }
]

RAW = {
    "video_name": "a.mp4",
    "video_path": "videos/a.mp4",
    "task_type": "Proactive Alert",
    "source": "made",
    "question": [{"content": "Tell me when it burns.", "time": "1"}],
    "response": [{"content": "It burns.", "time": "5,6,7"}, {"content": "It is out.", "time": 12}],
}
STREAMO_RAW = {
    "video_name": "b.mp4",
    "video_path": "v/b.mp4",
    "task_type": "QA",
    "source": "made",
    "question": [{"content": "Who is it?", "time": "2"}],
    "response": [{"content": "Ann.", "st_time": 5.0, "end_time": 6.0, "time": ""}],
}


def chat(turns: list[tuple[str, str]], **more: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    said = [
        {"role": r, "content": text} for turn in turns for r, text in zip(roles, turn, strict=True)
    ]
    return {"messages": said, "video_name": "b.mp4", "task_type": "QA", "source": "made", **more}


STREAMO_STREAM = chat(
    [
        ("Who is it?\n<0s-1s>\n<stream>", "</Silence>"),
        ("<1s-2s>\n<stream>", "</Silence>"),
        ("Who is it?\n<2s-3s>\n<stream>", "</Standby>"),
        ("<3s-4s>\n<stream>", "</Response> Ann."),
        ("<4s-5s>\n<stream>", "</Silence>"),
    ],
    videos=["v/b.mp4"],
)
CONVERTED = chat(
    [
        ("Count.\n<0.0 seconds>\n<image>", "</silence>"),
        ("<1.0 seconds>\n<image>", "</response> One moment. </delegation> How many are there?"),
        ("[Background 1] 3\n<2.0 seconds>\n<image>", "</response> Three."),
    ],
    images=["f/0.jpg", "f/1.jpg", "f/2.jpg"],
)
PLAIN = {
    "clip": {"id": "c", "duration": 20.0, "video": "v/c.mp4", "images": [], "scene": None},
    "family": "alerting",
    "source": "made",
    "events": [
        {"id": "q", "time": 0.0, "role": "user", "text": "Tell me when it burns."},
        {
            "id": "a",
            "time": 4.5,
            "role": "assistant",
            "text": "It burns.",
            "until": 7.0,
            "answers": "q",
            "rule": {"kind": "key_facts", "facts": ["burn|fire"]},
        },
    ],
}
EXACT = {
    **RAW,
    "response": [
        {
            "content": "It burns.",
            "time": "5,6,7",
            "event": {
                "id": "a",
                "until": 7.5,
                "repeat": True,
                "rule": {"kind": "exact", "facts": ["fire"]},
            },
        }
    ],
    "timeline": {"family": "alerting", "meta": {"n": 1}, "order": ["a", "q0"]},
}
PUBLISHED = [RAW, STREAMO_RAW, STREAMO_STREAM, CONVERTED, PLAIN, EXACT]

EVENTS = [
    {"video": "yard/gate.mp4", "start": 12.5, "end": 18, "text": "A van stops"},
    {"video": "yard/gate.mp4", "start": "1:05", "text": "a van stops"},
    {
        "video": "hall.mp4",
        "start": "3",
        "end": "",
        "text": "Someone falls.",
        "instruction": "Tell me when someone falls.",
        "family": "safety",
    },
]

VIDEO_QA = [
    {
        "video": "a/b.mp4",
        "question": "Which colour is the car?",
        "options": ["red", "blue"],
        "answer": "B",
        "time": 12,
    },
    {"video": "a/b.mp4", "question": "What happens?", "answer": "A car leaves.", "duration": 30},
]

RECORDS: dict[str, list[Any]] = {
    "qvhighlights": QVHIGHLIGHTS,
    "ovo_bench": OVO,
    "streamingbench_proactive": STREAMINGBENCH,
    "joyai": PUBLISHED,
    "streamo": PUBLISHED,
    "events": EVENTS,
    "video_qa": VIDEO_QA,
}
"""Sources of which an item is a record of a JSON list, with records in each shape."""

HOSTILE: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    -0.0,
    2,
    1.5,
    1e308,
    1e-320,
    float("nan"),
    float("inf"),
    -float("inf"),
    86400,
    86401,
    10**400,
    -(10**30),
    "",
    " ",
    "\n",
    "\0",
    "nan",
    "1e999",
    "1_0",
    "9" * 5000,
    "1" * 400 + ".0",
    "5,6,7",
    "٣",
    "5,,6",
    "00:99:00",
    "\ud800",
    "a\udfffb",
    "</silence>",
    "</response> x </delegation> y",
    "<image>",
    "<5.0 seconds>",
    "<" + "9" * 400 + ".0 seconds>\n<image>",
    "<" + "9" * 400 + "s-" + "9" * 400 + "s>\n<stream>",
    "[Background " + "9" * 5000 + "] x\n<2.0 seconds>",
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\x.mp4",
    "..\\x.mp4",
    "a/../../x.mp4",
    "https://example.org/a.mp4",
    "file:///etc/passwd",
    "concat:a.mp4|b.mp4",
    "a.zip/b.mp4",
    "zip://a.zip!b.mp4",
    "~/x.mp4",
    "x" * 300,
    "y" * 20_000,
    [],
    {},
    [[]],
    [None],
    [[1, 2], [2, 1]],
    [1, [2]],
    {"a": {"b": []}},
    {"content": "x", "time": {}},
    {"id": []},
    [float("nan"), 1],
]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """The path of every value inside of a record."""
    found = [path] if path else []
    if len(path) > 8 or not isinstance(value, dict | list):
        return found
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        found += places(part, (*path, key))
    return found


def spoilt(rng: random.Random, record: Any) -> Any:
    """The record with one to three things wrong with it, or something else in its place."""
    if rng.random() < 0.05:
        return rng.choice(HOSTILE)
    record = copy.deepcopy(record)
    for _ in range(rng.randint(1, 3)):
        found = places(record)
        if not found:
            break
        *way, last = rng.choice(found)
        inside = record
        for key in way:
            inside = inside[key]
        draw = rng.random()
        if draw < 0.1:
            del inside[last]
        elif draw < 0.2 and isinstance(inside, list):
            inside.append(inside[last])
        elif draw < 0.25 and isinstance(inside, dict):
            key = rng.choice(["event", "timeline", "until", "delegation", "x"])
            inside[key] = copy.deepcopy(rng.choice(HOSTILE))
        elif draw < 0.27:
            inside[last] = nested(rng.choice([50, 400, 900]))
        elif draw < 0.3 and isinstance(inside[last], str):
            at = rng.randint(0, len(inside[last]))
            inside[last] = inside[last][:at] + rng.choice("<>{}|#\\/\0\u2028é") + inside[last][at:]
        else:
            inside[last] = copy.deepcopy(rng.choice(HOSTILE))
    return record


def as_list(path: Path, records: list[Any]) -> Path:
    path.write_text("[" + ",\n".join(map(json.dumps, records)) + "]", encoding="utf-8")
    return path


def as_lines(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path
