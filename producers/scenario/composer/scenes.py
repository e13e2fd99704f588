"""Phrases for the place, the time and the state of the character. All settings follow "in"; states go by level."""

from __future__ import annotations

from schema.scenario import vocabulary

# By domain.
SETTINGS = tuple(tuple(setting.name for setting in domain) for domain in vocabulary.SETTINGS)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PARTS = ("morning", "afternoon", "evening")
WEATHERS = (
    *("a wet", "a windy", "a grey", "a bright", "a frosty", "a mild", "a stormy", "a foggy", "a hot", "a cold"),
    *("a quiet", "an endless", "a long", "an ordinary", "a hurried", "a drizzly", "a noisy", "a slow", "a sunny"),
)
WHENS = (
    "on {weather} {day} {part}",
    "on {weather} {day} {part}",
    "late on {day}",
    "early on {day}",
    "on {day}, just before noon",
    "on {day}, some time after supper",
    "at the end of {weather} {day}",
    "halfway through {weather} {day}",
    "on the first {day} of the month",
    "on the last {day} of the holidays",
    "on {day}, when the others have gone",
    "on {day}, before anyone else is about",
)
SCENES = (
    "{^when}, I find my {relation} {name} in {setting}, {busy}.",
    "My {relation} {name} is in {setting} {when}, {busy}.",
    "{^when}, I come upon my {relation} {name} in {setting}, {busy}.",
    "In {setting}, {when}, my {relation} {name} is {busy}.",
    "I catch {name}, my {relation}, in {setting} {when}, {busy}.",
    "{name} is my {relation}, and, {when}, we end up together in {setting}.",
    "{^when}, the two of us are in {setting}, my {relation} {name} {busy}.",
    "It takes me a while to find my {relation} {name}, who is in {setting} {when}, {busy}.",
    "{^when}, I look round, and there in {setting} is {name}, my {relation}, {busy}.",
    "I need a word with my {relation}, and, {when}, I find {name} in {setting}, {busy}.",
)
# By level: crisis, low, medium, high.
BUSY = (
    (
        *("staring at a wall", "holding a phone that has stopped ringing", "sitting on the floor with a coat still on"),
        *("rocking a little, eyes shut", "trying to remember how to breathe slowly", "crying without a sound"),
        *("picking at a plaster", "leaning on the doorframe so as not to fall", "saying a number over and over"),
        *("counting tablets into a box", "standing quite still", "looking through me"),
    ),
    (
        *("rubbing sore eyes", "letting a cup of tea go cold", "reading the same page again"),
        *("leaning back with both eyes closed", "moving more slowly than usual", "losing the thread of a message"),
        *("sorting post without opening it", "looking for keys that are in plain sight", "yawning behind one hand"),
        *("eating a late sandwich without tasting it", "sitting down between two steps of the same job"),
        *("putting off a phone call",),
    ),
    (
        *("ticking off a list", "folding a coat over a chair", "waiting for a phone to charge"),
        *("writing on the back of an envelope", "packing a bag", "wiping a surface that is already clean"),
        *("untangling a pair of headphones", "sorting receipts by month", "turning a pen over and over"),
        *("peeling an orange in one long ribbon", "watering a plant", "filling in a form with care"),
    ),
    (
        *("humming over some small repair", "whistling", "laughing at something on the radio"),
        *("arranging flowers in a jar", "setting up a chessboard", "sharing out cake on paper plates"),
        *("oiling a squeaky hinge", "drawing plans on a napkin", "stretching after a run", "tuning a guitar"),
        *("stacking the last boxes with ease", "reading with both feet up"),
    ),
)
ANCHORED = (
    "Asked how things stand, {name} says: {anchor}.",
    "{^anchor}: that is how {name} sums up the week.",
    "The honest summary is {anchor}.",
    '"{^anchor}" is the answer when I ask how it goes.',
    "If there were a gauge for it, it would read: {anchor}.",
    "Anyone who looks can see how it is: {anchor}.",
    "{name} has one phrase for these days: {anchor}.",
    "I know how it is without asking: {anchor}.",
    "In {name}'s own words: {anchor}.",
    'The last message I had from {name} said only "{anchor}".',
    "If I had to put it on a postcard, I would write: {anchor}.",
    "{name} shrugs and says it plainly: {anchor}.",
)
# By level.
DETAILS = (
    (
        "Even standing up takes planning.",
        "Meals have been forgotten since yesterday.",
        "The hands will not stop shaking.",
        "Every sound comes as a blow.",
        "Getting to the evening is the whole plan.",
        "Sentences are started and not finished.",
        "There is no tomorrow in it, only the next hour.",
        "One more knock at the door would be too many.",
        "Sleep has not come for days.",
        "Whatever used to hold has given way.",
        "Breathing is a thing to be remembered.",
        "The simplest choice is too much.",
    ),
    (
        "There is a little left for the evening, and not much after it.",
        "Names slip away in the middle of a sentence.",
        "The stairs have become longer this week.",
        "Every favour is weighed twice now.",
        "The weekend is still far off.",
        "The patience is there, but thin.",
        "Half the list from last week is still open.",
        "A short walk already needs a rest after it.",
        "Coffee stopped helping on the second day.",
        "What there is has to be shared out with care.",
        "The smile comes, a second late.",
        "An early night has been promised and missed three times.",
    ),
    (
        "The day's work will get done, with a pause in the middle.",
        "There is something to spare, though not for everything.",
        "It is neither a good week nor a bad one.",
        "Most things get done, and a few get put off.",
        "The balance holds as long as nobody pushes.",
        "One thing at a time works well enough.",
        "The evenings are quiet, and they need to be.",
        "A plan helps, and so does a proper lunch.",
        "There is room for one extra thing, chosen well.",
        "The diary is full, but it can be read.",
        "Good hours and dull ones take turns.",
        "Things run, on a steady flame.",
    ),
    (
        "There is energy for more than the day asks.",
        "It can be heard in the voice already.",
        "Even the phone calls are a pleasure this week.",
        "The work is done before it is due.",
        "There is time to listen, and the wish to.",
        "The windows are open, and so is the calendar.",
        "Small troubles roll off like rain.",
        "Even bad news finds a place to sit down.",
        "The rest of the day is free.",
        "The step is light.",
        "There has been time to breathe.",
        "There is a calm in it that others lean on.",
    ),
)
