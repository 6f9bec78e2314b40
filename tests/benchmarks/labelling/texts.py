"""Texts with known topics: `python tests/benchmarks/labelling/texts.py FOLDER [FORTUNES]`.

Writes `plain.jsonl` (1,000 short texts of five topics), `long.jsonl` (100 documents of some 400 tokens in which most
sentences are of one of these topics) and, where FORTUNES is the folder `usr/share/games/fortunes` of Debian's package
`fortunes`, `fortunes.jsonl` (1,000 texts of ten of its topics). Rows are `{"body": ..., "topic": ...}`; the same bytes
every time.

A sentence is a frame, which all topics share, around a clause of its topic. Clauses are made of slots; words such as
"match", "ticket", "season", "record" and "fresh" stand in several topics, so that no single word gives a text away.
"""

import json
import random
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

SEED = 7
PER_PLAIN_TOPIC, NUM_LONG = 200, 100
FORTUNE_TOPICS = (
    "art", "computers", "drugs", "education", "food", "law", "love", "politics", "science", "sports",
)  # fmt: skip
PER_FORTUNE_TOPIC, MAX_FORTUNE_CHARS = 100, 400

FRAMES = (
    "{clause}.",
    "{clause}, and {end}.",
    "{Who} told me {when} that {clause}.",
    "I heard {when} that {clause}.",
    "According to {who}, {clause}.",
    "{When}, {clause}.",
    "Believe it or not, {clause}.",
    "{Who} could not stop talking about it: {clause}.",
    "It was {who} who said that {clause}.",
    "Do you remember when {clause}?",
)
NEUTRAL = (
    "{Who} arrived a little late, as usual.",
    "Nobody in the office had expected that.",
    "{When}, the street was quiet and the shops were closed.",
    "{Who} wrote it all down in a small notebook.",
    "There was a long pause before anybody answered.",
    "{Who} laughed and went home.",
    "The letter came {when}, in a plain envelope.",
    "We sat on the stairs and waited for {who}.",
)
SHARED: Mapping[str, Sequence[str]] = {
    "who": (
        "my neighbour", "Anna", "the old man next door", "a friend from school", "Peter", "our teacher", "Maria",
        "the woman at the counter", "my brother", "Mr. Okafor", "the twins", "my aunt",
    ),
    "when": (
        "yesterday", "last week", "on Sunday evening", "this morning", "two years ago", "before the holidays",
        "late at night", "in the middle of March", "the other day", "on her birthday",
    ),
    "end": (
        "nobody could believe it", "everyone was pleased", "it took longer than planned", "that was a fresh start",
        "we will not forget it", "the result was a surprise", "it was worth every minute", "I would do it again",
    ),
}  # fmt: skip
CLAUSES: Mapping[str, Sequence[str]] = {
    "sports": (
        "the {player} scored {number} {points} in the {part} of the match",
        "the {team} lost the final after a red card and a missed penalty",
        "the {player} broke the club record for the {race}",
        "the coach dropped the {player} before the game against the {team}",
        "{number} runners finished the {race} in the heat",
        "the {team} signed a young {player} for next season",
        "the referee stopped the {game} match for {number} minutes",
        "the {player} trained every day for the {game} championship",
        "the {team} won the league without losing a single game",
    ),
    "cooking": (
        "you should {heat} the {food} for {number} minutes and add {spice}",
        "the {dish} needs more {spice} and a little {fat}",
        "chop the {food} finely and {heat} it in {fat}",
        "the secret of a good {dish} is fresh {food}",
        "the dough has to rest for {number} minutes before it goes into the oven",
        "the {dish} goes well with roasted {food} and a spoon of {fat}",
        "a pinch of {spice} makes the {dish} taste much better",
        "we peeled {number} pounds of {food} for the {dish}",
        "whisk the eggs with {fat}, then fold in the {food}",
    ),
    "travel": (
        "our flight to {city} was delayed by {number} hours",
        "the hotel in {city} had a room with a view of the {sight}",
        "we took the night train from {city} to {other_city} on our holiday",
        "the flights to {city} are cheaper out of season",
        "a guide showed the tourists the {sight} of {city}",
        "we flew to {city} with two suitcases and a guidebook",
        "you need a visa and a passport to visit {city}",
        "we spent our holiday in a small hotel near the {sight} of {city}",
        "the cruise stops in {city} and {other_city} before it sails home",
    ),
    "music": (
        "the {musician} played a {piece} in {key} minor",
        "the band released its {number}th album, with a long {instrument} solo",
        "the orchestra rehearsed the {piece} for {number} hours",
        "the {musician} tuned the {instrument} before the concert",
        "the choir sang the {piece} without a single wrong note",
        "her new song has a catchy melody and a slow {instrument} part",
        "the record has {number} tracks, most of them with {instrument} and drums",
        "the {musician} wrote the {piece} at the age of {number}",
        "the audience clapped along to the rhythm of the {instrument}",
    ),
    "health": (
        "the doctor prescribed {drug} for the {illness}",
        "the nurse measured the blood pressure of the {patient} in the hospital",
        "the {patient} recovered from the {illness} within {number} days",
        "the {patient} was taken to hospital because of the {illness}",
        "a new vaccine protects {number} percent of children against the {illness}",
        "the surgeon operated on the {patient} for {number} hours",
        "the clinic tests {drug} as a treatment for the {illness}",
        "the symptoms of the {illness} returned after {number} days",
        "the {patient} has to take {drug} against the {illness} every day",
    ),
}
WORDS: Mapping[str, Sequence[str]] = {
    "player": ("striker", "goalkeeper", "young swimmer", "sprinter", "captain", "tennis player", "forward", "boxer"),
    "team": ("Rovers", "home team", "visitors", "national team", "Tigers", "champions", "reserve side", "Wolves"),
    "points": ("goals", "points", "times", "tries"),
    "part": ("first half", "second half", "last minutes", "opening quarter"),
    "race": ("marathon", "100 metres", "relay", "steeplechase", "half marathon", "mountain stage"),
    "game": ("football", "basketball", "tennis", "hockey", "rugby", "volleyball"),
    "heat": ("fry", "boil", "roast", "simmer", "steam", "bake"),
    "food": ("onions", "potatoes", "chicken", "mushrooms", "tomatoes", "carrots", "apples", "lentils", "salmon"),
    "spice": ("salt", "pepper", "garlic", "cumin", "basil", "lemon juice", "ginger", "paprika"),
    "fat": ("butter", "olive oil", "cream", "sour cream"),
    "dish": ("soup", "stew", "curry", "pie", "sauce", "salad", "risotto", "casserole"),
    "city": ("Lisbon", "Kyoto", "Rome", "Istanbul", "Cairo", "Prague", "Lima", "Athens"),
    "other_city": ("Vienna", "Naples", "Oslo", "Marrakesh", "Seville", "Tallinn"),
    "sight": ("old harbour", "waterfall", "cathedral", "ruins", "beach", "castle", "volcano", "lighthouse"),
    "musician": ("pianist", "violinist", "singer", "guitarist", "cellist", "young composer", "drummer"),
    "piece": ("sonata", "symphony", "waltz", "ballad", "string quartet", "hymn", "concerto"),
    "key": ("A", "C", "D", "E", "G"),
    "instrument": ("guitar", "piano", "saxophone", "violin", "bass", "trumpet", "accordion"),
    "illness": ("fever", "flu", "broken ankle", "infection", "heart attack", "migraine", "allergy", "measles"),
    "drug": ("antibiotics", "painkillers", "insulin", "a stronger medicine", "vitamin tablets", "an ointment"),
    "patient": ("patient", "child", "old woman", "baby", "bus driver", "young mother", "farmer", "boy"),
    "number": ("three", "five", "seven", "nine", "12", "15", "20", "30", "40", "60"),
}


def plain_texts(seed: int = SEED) -> list[dict[str, str]]:
    """Short texts of five topics, in random order; no two are the same."""
    random_source = random.Random(seed)
    rows = []
    for topic in CLAUSES:
        bodies: dict[str, None] = {}
        while len(bodies) < PER_PLAIN_TOPIC:
            bodies[sentence(topic, random_source)] = None
        rows += [{"body": body, "topic": topic} for body in bodies]
    random_source.shuffle(rows)
    return rows


def long_texts(seed: int = SEED) -> list[dict[str, str]]:
    """Documents of 30 sentences: 12 of their topic, 3 of another, 15 of none."""
    random_source = random.Random(seed + 1)
    topics = list(CLAUSES)
    rows = []
    for number in range(NUM_LONG):
        topic = topics[number % len(topics)]
        other = random_source.choice([name for name in topics if name != topic])
        sentences = [
            *(sentence(topic, random_source) for _ in range(12)),
            *(sentence(other, random_source) for _ in range(3)),
            *(filled(random_source.choice(NEUTRAL), random_source) for _ in range(15)),
        ]
        random_source.shuffle(sentences)
        rows.append({"body": " ".join(sentences), "topic": topic})
    return rows


def sentence(topic: str, random_source: random.Random) -> str:
    """A sentence about a topic."""
    clause = filled(random_source.choice(CLAUSES[topic]), random_source)
    text = filled(random_source.choice(FRAMES).replace("{clause}", clause), random_source)
    return text[0].upper() + text[1:]


def filled(text: str, random_source: random.Random) -> str:
    """The text with a word in every slot; a slot with a capital begins with one."""

    def word(slot: re.Match[str]) -> str:
        name = slot[1].lower()
        chosen = random_source.choice(SHARED[name] if name in SHARED else WORDS[name])
        return chosen if slot[1] == name else chosen[0].upper() + chosen[1:]

    return re.sub(r"\{(\w+)\}", word, text)


def fortune_texts(folder: Path, seed: int = SEED) -> list[dict[str, str]]:
    """Texts of Debian's fortunes, in random order; a file is a topic, and its texts end with a line `%`."""
    random_source = random.Random(seed)
    rows = []
    for topic in FORTUNE_TOPICS:
        bodies = sorted(set(_fortunes((folder / topic).read_text(encoding="utf-8"))))
        rows += [{"body": body, "topic": topic} for body in random_source.sample(bodies, PER_FORTUNE_TOPIC)]
    random_source.shuffle(rows)
    return rows


def _fortunes(text: str) -> Iterator[str]:
    for part in re.split(r"^%$", text, flags=re.MULTILINE):
        body = " ".join(part.split())
        if 0 < len(body) <= MAX_FORTUNE_CHARS:
            yield body


def _write(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    """Command line."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "plain.jsonl", plain_texts())
    _write(folder / "long.jsonl", long_texts())
    if len(sys.argv) > 2:
        _write(folder / "fortunes.jsonl", fortune_texts(Path(sys.argv[2])))


if __name__ == "__main__":
    main()
