"""The training side: feeds for torch loops, the trainers that use them, and replays of topics into files.

`replay` and the modules it imports run without torch. `feed` and the trainers need the extra `train`.
"""
