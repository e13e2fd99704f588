"""Names, relations and settings of scenarios, for the composer and for augmentations that swap them.

A name fits every age band. A setting fits after "in". The order matters, because rows are drawn by index.
"""

from __future__ import annotations

from typing import NamedTuple

from schema.scenario.columns import AGE_BANDS

# Genders of a name or a relation; only a relation can be EITHER.
WOMAN, MAN, EITHER = range(3)

WOMEN = (
    *("Adaeze", "Agnes", "Aiko", "Alma", "Amina", "Anouk", "Astrid", "Beatriz", "Brigid", "Camille", "Carmen"),
    *("Chiara", "Dagny", "Delphine", "Dorothy", "Eleni", "Elif", "Esther", "Fatima", "Freya", "Gloria", "Greta"),
    *("Hana", "Helena", "Ingrid", "Ioana", "Irina", "Jasmine", "Johanna", "Kamala", "Katarzyna", "Laleh", "Leila"),
    *("Lucía", "Magda", "Maren", "Marisol", "Mei", "Mireille", "Nadia", "Naledi", "Ngozi", "Noor", "Olga", "Paloma"),
    *("Petra", "Priya", "Rosalind", "Ruth", "Sanna", "Shirin", "Sigrid", "Simone", "Sunita", "Tamar", "Thandi"),
    *("Valentina", "Wanjiru", "Yara", "Yuki", "Zeynep", "Zofia"),
)
MEN = (
    *("Abdul", "Alasdair", "Amit", "Anders", "Anton", "Baptiste", "Bjorn", "Bogdan", "Carlos", "Cedric", "Chidi"),
    *("Cormac", "Dariusz", "Deniz", "Desmond", "Eduardo", "Elias", "Emeka", "Enzo", "Farid", "Felix", "Gabriel"),
    *("Giorgos", "Gunnar", "Hamza", "Hideo", "Ibrahim", "Igor", "Ilya", "Jakub", "Javier", "Jonas", "Kaito", "Karim"),
    *("Kofi", "Lars", "Leopold", "Luca", "Malik", "Marek", "Mateo", "Mihai", "Minh", "Nikhil", "Oskar", "Padraig"),
    *("Rafael", "Rajesh", "Ruben", "Salim", "Samuel", "Stefan", "Tariq", "Tenzin", "Tobias", "Vikram", "Wendell"),
    *("Xavier", "Yusuf", "Zoltan"),
)

DOMAINS = ("family", "friends", "work")
# Relations of one circle can replace one another if gender and age allow it; each circle belongs to a domain.
CIRCLES = {
    "siblings": "family",
    "elders": "family",
    "juniors": "family",
    "friends": "friends",
    "neighbours": "friends",
    "peers": "work",
    "leads": "work",
}

ANY_AGE, GROWN, OLDER, YOUNGER = AGE_BANDS, AGE_BANDS[1:], AGE_BANDS[2:], AGE_BANDS[:3]


class Relation(NamedTuple):
    """A character's relation to the person who asks, with the gender and the age bands that it fits."""

    name: str
    gender: int
    circle: str
    age_bands: tuple[str, ...] = ANY_AGE

    @property
    def domain(self) -> int:
        """The index of its domain in `DOMAINS`."""
        return DOMAINS.index(CIRCLES[self.circle])


RELATIONS = (
    Relation("older sister", WOMAN, "siblings"),
    Relation("older brother", MAN, "siblings"),
    Relation("younger sister", WOMAN, "siblings", AGE_BANDS[:4]),
    Relation("younger brother", MAN, "siblings", AGE_BANDS[:4]),
    Relation("mother", WOMAN, "elders", OLDER),
    Relation("father", MAN, "elders", OLDER),
    Relation("aunt", WOMAN, "elders", GROWN),
    Relation("uncle", MAN, "elders", GROWN),
    Relation("grandmother", WOMAN, "elders", AGE_BANDS[3:]),
    Relation("grandfather", MAN, "elders", AGE_BANDS[3:]),
    Relation("daughter", WOMAN, "juniors", YOUNGER),
    Relation("son", MAN, "juniors", YOUNGER),
    Relation("sister-in-law", WOMAN, "siblings"),
    Relation("brother-in-law", MAN, "siblings"),
    Relation("stepmother", WOMAN, "elders", GROWN),
    Relation("stepfather", MAN, "elders", GROWN),
    Relation("cousin", EITHER, "siblings"),
    Relation("neighbour", EITHER, "neighbours"),
    Relation("flatmate", EITHER, "neighbours", YOUNGER),
    Relation("old friend", EITHER, "friends"),
    Relation("best friend", EITHER, "friends"),
    Relation("childhood friend", EITHER, "friends"),
    Relation("running partner", EITHER, "friends", AGE_BANDS[:4]),
    Relation("choir friend", EITHER, "friends"),
    Relation("former flatmate", EITHER, "neighbours", AGE_BANDS[1:4]),
    Relation("colleague", EITHER, "peers", AGE_BANDS[:4]),
    Relation("team lead", EITHER, "leads", AGE_BANDS[1:4]),
    Relation("line manager", EITHER, "leads", AGE_BANDS[1:4]),
    Relation("business partner", EITHER, "peers", AGE_BANDS[1:4]),
    Relation("mentor", EITHER, "leads", OLDER),
    Relation("shift partner", EITHER, "peers", AGE_BANDS[:4]),
    Relation("former boss", EITHER, "leads", OLDER),
    Relation("desk neighbour", EITHER, "peers", AGE_BANDS[:4]),
)


class Setting(NamedTuple):
    """A place of a scenario; settings of one kind can replace one another."""

    name: str
    kind: str


KINDS = ("home", "clinic", "outdoors", "public", "transit", "work")

# By domain.
SETTINGS = (
    (
        Setting("the kitchen", "home"),
        Setting("the hospital corridor", "clinic"),
        Setting("the back garden", "home"),
        Setting("the laundry room", "home"),
        Setting("the old nursery", "home"),
        Setting("the parked car", "transit"),
        Setting("the front hall", "home"),
        Setting("the living room", "home"),
        Setting("the attic", "home"),
        Setting("the greenhouse", "home"),
        Setting("the garage", "home"),
        Setting("the spare bedroom", "home"),
        Setting("the waiting room of the clinic", "clinic"),
        Setting("the bakery queue", "public"),
        Setting("the allotment", "outdoors"),
        Setting("the stairwell", "public"),
        Setting("the church hall", "public"),
        Setting("the supermarket car park", "outdoors"),
        Setting("the small dining room", "home"),
        Setting("the cellar", "home"),
    ),
    (
        Setting("the corner café", "public"),
        Setting("the community garden", "outdoors"),
        Setting("the launderette", "public"),
        Setting("the park", "outdoors"),
        Setting("the stairwell", "public"),
        Setting("the bike shed", "public"),
        Setting("the library", "public"),
        Setting("the shared kitchen", "public"),
        Setting("the courtyard", "outdoors"),
        Setting("the foyer of the baths", "public"),
        Setting("the tram", "transit"),
        Setting("the pub garden", "outdoors"),
        Setting("the rehearsal room", "public"),
        Setting("the bus shelter", "transit"),
        Setting("the market hall", "public"),
        Setting("the lift", "transit"),
        Setting("the playground", "outdoors"),
        Setting("the flea market", "outdoors"),
        Setting("the cinema foyer", "public"),
        Setting("the train carriage", "transit"),
    ),
    (
        Setting("the staff room", "work"),
        Setting("the loading bay", "work"),
        Setting("the open-plan office", "work"),
        Setting("the meeting room", "work"),
        Setting("the print shop", "work"),
        Setting("the canteen", "work"),
        Setting("the archive", "work"),
        Setting("the server room", "work"),
        Setting("the workshop", "work"),
        Setting("the hotel lobby", "work"),
        Setting("the ward office", "work"),
        Setting("the back office", "work"),
        Setting("the site cabin", "work"),
        Setting("the lift to the fourth floor", "work"),
        Setting("the stockroom", "work"),
        Setting("the break room", "work"),
        Setting("the lecture hall", "work"),
        Setting("the post room", "work"),
        Setting("the empty showroom", "work"),
        Setting("the car park behind the office", "work"),
    ),
)
