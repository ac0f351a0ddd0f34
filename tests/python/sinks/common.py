"""The texts of the recipes. They read GATEWAY and MUSE_API_KEY from the environment."""

TEXTS = ["The cat sleeps.", "Der Zug hat Verspätung.", "Me gusta el té.", "明日は雨が降るでしょう。"]
QUERY = "The train is late."
FOUND = "Der Zug hat Verspätung."


def batches():
    """Yield ids and texts, as a job reads them from its input."""
    for start in range(0, len(TEXTS), 2):
        yield list(range(start, start + 2)), TEXTS[start : start + 2]
