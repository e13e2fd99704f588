"""Names, relations and settings that can be swapped for one another in a scenario.

A name is swapped for one of the same gender, if the texts reveal a gender. A relation is swapped for one of the same
circle, gender and age. A setting is swapped for one of the same kind of place. The lists hold the vocabulary of
composed rows (`schema.scenario.vocabulary`) and words that models and people use.
"""

from __future__ import annotations

from schema.scenario import vocabulary
from schema.scenario.columns import AGE_BANDS
from schema.scenario.vocabulary import EITHER, MAN, OLDER, WOMAN, YOUNGER, Relation

# Names of either gender, in addition to those of women and men.
ANYONE = ("Alex", "Ariel", "Jamie", "Jordan", "Kim", "Noa", "Quinn", "Robin", "Rowan", "Sasha", "Toni", "Yael")

RELATIONS = (
    *vocabulary.RELATIONS,
    Relation("sister", WOMAN, "siblings"),
    Relation("half-sister", WOMAN, "siblings"),
    Relation("brother", MAN, "siblings"),
    Relation("half-brother", MAN, "siblings"),
    Relation("godmother", WOMAN, "elders", OLDER),
    Relation("godfather", MAN, "elders", OLDER),
    Relation("stepdaughter", WOMAN, "juniors", YOUNGER),
    Relation("niece", WOMAN, "juniors", YOUNGER),
    Relation("stepson", MAN, "juniors", YOUNGER),
    Relation("nephew", MAN, "juniors", YOUNGER),
    Relation("friend", EITHER, "friends"),
    Relation("close friend", EITHER, "friends"),
    Relation("upstairs neighbour", EITHER, "neighbours"),
    Relation("next-door neighbour", EITHER, "neighbours"),
    Relation("roommate", EITHER, "neighbours", YOUNGER),
    Relation("housemate", EITHER, "neighbours"),
    Relation("coworker", EITHER, "peers", AGE_BANDS[:4]),
    Relation("manager", EITHER, "leads", AGE_BANDS[1:4]),
    Relation("supervisor", EITHER, "leads", AGE_BANDS[1:4]),
)

# More settings by kind.
_MORE_SETTINGS: dict[str, tuple[str, ...]] = {
    "home": (
        "the hallway",
        "the conservatory",
        "the study",
        "the guest room",
    ),
    "clinic": (
        "the waiting room",
        "the hospital canteen",
        "the pharmacy queue",
        "the day ward",
        "the physiotherapy room",
    ),
    "outdoors": (
        "the market square",
        "the car park",
    ),
    "public": (
        "the swimming pool lobby",
        "the museum shop",
        "the sports hall",
    ),
    "transit": ("the night bus",),
    "work": ("the reception",),
}
_SHARED = [setting for domain in vocabulary.SETTINGS for setting in domain]
SETTINGS = tuple(
    (*dict.fromkeys(setting.name for setting in _SHARED if setting.kind == kind), *_MORE_SETTINGS[kind])
    for kind in vocabulary.KINDS
)

# Words by which a text may name a person's kin or office; in Rust's regular expressions.
KIN = (
    r"(?i)\b(?:mum|mom|mummy|mama|mother|dad|daddy|papa|father|sis|sister|bro|brother|aunt|auntie|uncle|nan|gran|granny"
    r"|grandma|grandmother|grandpa|grandfather|daughter|son|niece|nephew|cousin|boss|manager|neighbour|neighbor|friend"
    r"|flatmate|roommate|housemate|colleague|coworker|partner|lead|mentor|supervisor)s?\b"
)
# Words that reveal a woman, or a man; in Rust's regular expressions.
HERS = r"(?i)\b(?:she|her|hers|herself|woman|lady|girl|mrs|ms|mum|mom)\b"
HIS = r"(?i)\b(?:he|him|his|himself|man|guy|boy|mr|sir|dad)\b"
