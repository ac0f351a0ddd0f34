"""The file of the tests of Search, and the requests of its embedding job."""

import json

ANIMALS = ("cat", "dog", "horse", "bird", "fish", "mouse")
VERBS = ("sleeps", "eats", "plays", "hides", "waits")
PLACES = ("house", "river", "old tree", "garden", "station", "bridge", "school", "market", "hill", "lake")
LINES = [f"The {animal} {verb} near the {place}." for animal in ANIMALS for verb in VERBS for place in PLACES]
# A line of its own meaning, and a query for it in another language.
NEEDLE = LINES[150] = "Die Bibliothek öffnet morgens um neun Uhr."
QUERY = "図書館は何時に開きますか"


def is_batch(path, body):
    """Whether a request is one of the job, not one of a query."""
    return path == "embed" and len(json.loads(body)["sentence"]) > 1


def batches_after(count):
    """Return a condition for requests: the batches of the job after so many."""
    seen = []

    def condition(path, body):
        if not is_batch(path, body):
            return False
        seen.append(body)
        return len(seen) > count

    return condition
