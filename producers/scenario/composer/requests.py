"""Phrases that ask for a task: deadlines, requests and reasons."""

from __future__ import annotations

# By urgency, then by whether the task is large.
DEADLINES = (
    (
        (
            "tonight",
            "tomorrow",
            "on {wanted_day}",
            "before the weekend",
            "this week",
            "some time on {wanted_day}",
            "by {wanted_day}",
        ),
        (
            "from {wanted_day} on",
            "starting this week",
            "starting on {wanted_day}",
            "from next week on",
            "as of tomorrow",
        ),
    ),
    (
        ("now", "right now", "at once", "straight away", "immediately"),
        ("from tonight on", "starting now", "beginning this very day", "from this hour on", "as of tonight"),
    ),
)
# By urgency.
ASKS = (
    (
        "Could you {task} {deadline}?",
        "I need you to {task} {deadline}.",
        "Is there any way you could {task} {deadline}?",
        "Would you {task} {deadline}?",
        "I wanted to ask whether you would {task} {deadline}.",
        "Please {task} {deadline}.",
        "What would you say if I asked you to {task} {deadline}?",
        "Can I count on you to {task} {deadline}?",
        "I am asking you to {task} {deadline}.",
        "Do you think you could {task} {deadline}?",
        "Might you be able to {task} {deadline}?",
        "I would be grateful if you could {task} {deadline}.",
    ),
    (
        "I need you to {task} {deadline}.",
        "Please {task} {deadline}.",
        "Can you {task} {deadline}?",
        "You have to {task} {deadline}.",
        "I beg you to {task} {deadline}.",
        "You must {task} {deadline}, please.",
        "Could you {task} {deadline}?",
        "Somebody has to {task} {deadline}, and it can only be you.",
    ),
)
# By size: small, middling, large; then those of emergencies.
REASONS = (
    (
        "It would not take long.",
        "It is a small thing, I know.",
        "That would be all.",
        "Nothing more than that, I promise.",
        "It would help more than it looks.",
        "I would do it myself if I were not needed elsewhere.",
        "A quarter of an hour, no more.",
        "It hardly deserves the name of a favour.",
        "I thought of you first.",
        "It would take one thing off my mind.",
    ),
    (
        "It would take a good part of your time, I know.",
        "I have been putting off asking.",
        "The others have already said no.",
        "It would give me room to breathe.",
        "I cannot do both that and my own work.",
        "You have done it before, and well.",
        "I would owe you one.",
        "It matters to me more than I can say.",
        "I have tried to manage it alone, and it shows.",
        "I would not ask if I saw another way.",
    ),
    (
        "I know how much that is.",
        "There is nobody else I can turn to.",
        "I do not see how I am to get through it otherwise.",
        "It is a lot to ask of anyone.",
        "Everything depends on it.",
        "I have gone through every other name in my head.",
        "I cannot promise that it will end there.",
        "It would change everything for me.",
        "I have no right to ask, and I am asking.",
        "It will cost you, I know.",
    ),
    (
        "I do not trust myself to do it alone.",
        "I cannot be in two places.",
        "They said that it has to be somebody close by.",
        "Yours was the first door I came to.",
        "I have tried everybody else on the way.",
        "My hands are shaking too much.",
        "I cannot think straight.",
        "It has to be somebody who keeps calm.",
        "I do not dare to wait.",
        "Nobody answers the phone.",
    ),
)
